"""How pages read a project: each part by itself, so that one that fails says so and the rest of the page stands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from tidemill.errors import TidemillError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a part of a page could not be read."""

    text: str


def attempt(read: Callable[[], T]) -> T | Trouble:
    """What `read` gives, or the trouble it had. Only what Tidemill raises on purpose is told; a defect is raised."""
    try:
        return read()
    except TidemillError as error:
        return Trouble(text=str(error))


class Memory(Generic[T]):
    """Keeps an answer for some seconds, so that many open pages cost no more than one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Hashable, tuple[float, T]] = {}
        self._changing = threading.Lock()

    def recall(self, key: Hashable, read: Callable[[], T]) -> T:
        with self._changing:
            kept = self._kept.get(key)
        if kept is not None and monotonic() - kept[0] < self._seconds:
            return kept[1]
        found = read()
        with self._changing:
            self._kept = {k: v for k, v in self._kept.items() if monotonic() - v[0] < self._seconds}
            self._kept[key] = (monotonic(), found)
        return found
