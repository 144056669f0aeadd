"""Parts of an object that are made when they are first asked for, once."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar, overload

Owner = TypeVar("Owner")
Part = TypeVar("Part")


class part(Generic[Owner, Part]):
    """An attribute that is made when it is first asked for, once however many threads ask for it at the same moment.

    For what must not be there twice, such as connections and open files. `functools.cached_property` makes it twice
    from Python 3.12 on; before, all objects of a class waited for each other. Parts that are made from one another must
    not do so in a circle.
    """

    def __init__(self, make: Callable[[Owner], Part]) -> None:
        self._make, self._name = make, make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: None, of: type[Owner]) -> part[Owner, Part]: ...

    @overload
    def __get__(self, owner: Owner, of: type[Owner]) -> Part: ...

    def __get__(self, owner: Owner | None, of: type[Owner]) -> part[Owner, Part] | Part:
        if owner is None:
            return self
        with _turn(owner, self._name):
            made = owner.__dict__
            if self._name not in made:
                made[self._name] = self._make(owner)
            return made[self._name]


def take_out(owner: Any, name: str) -> Any:
    """Remove a part, which is made anew when it is next asked for; None where nobody has asked for it.

    Waits for a thread that is just making it.
    """
    with _turn(owner, name):
        return owner.__dict__.pop(name, None)


def _turn(owner: Any, name: str) -> RLock:
    return owner.__dict__.setdefault(f"_making_{name}", RLock())
