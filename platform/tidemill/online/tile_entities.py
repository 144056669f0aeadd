"""Whom events are about: the keys of the entities of one view, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Lock
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.keys import key_layout

_KEPT = 100_000


@dataclass(frozen=True, kw_only=True)
class Coded:
    """The entity of each row as a number below `size`, -1 where a join key is null; its Redis key is `keys[number]`."""

    code: np.ndarray
    keys: Sequence[bytes]
    size: int


@dataclass(frozen=True, kw_only=True)
class _Known:
    """Entities by number; those that nobody can be, since a key is null, have the number -1."""

    numbers: dict[Any, int] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)


class Entities:
    """The entities of one view, as their Redis keys: `prefix` and Feast's serialization.

    Keys are kept once made, since most events are about somebody known. Any number of threads may ask.
    """

    def __init__(self, catalog: Catalog, view: View, prefix: bytes) -> None:
        self._names, self._prefix = view.join_keys, prefix
        self._layout = key_layout(catalog, view)
        self._known, self._growing = _Known(), Lock()

    def _names_of(self, columns: Mapping[str, Sequence[Any]], size: int) -> Sequence[Any]:
        """What tells the entity of each row apart: the value of its join key, or the values of several as a tuple."""
        if len(self._names) == 1:
            return columns[self._names[0]]
        return list(zip(*[columns[name] for name in self._names], strict=True)) if self._names else [()] * size

    def of(self, columns: Mapping[str, Sequence[Any]], size: int) -> Coded:
        """Those of some rows, given as columns of plain values."""
        names, known = self._names_of(columns, size), self._known
        try:
            code = _coded(known, names)
        except KeyError:
            known = self._grown(dict.fromkeys(names))
            code = _coded(known, names)
        return Coded(code=code, keys=known.keys, size=len(known.keys))

    def name_at(self, columns: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
        """What picks an entity's name out of a row of plain values in these columns."""
        if not self._names:
            return lambda _row: ()
        return itemgetter(*[columns.index(name) for name in self._names])

    def key(self, name: Any) -> bytes:
        """The Redis key of a name in which no join key is null. It is not kept."""
        found = self._made([name])[0]
        if found is None:
            raise ValueError("No entity has a null among its join keys.")
        return self._prefix + found

    def _grown(self, names: Iterable[Any]) -> _Known:
        """The known entities, and these with them."""
        with self._growing:
            known = self._known
            fresh = [name for name in names if name not in known.numbers]
            if len(known.numbers) + len(fresh) > _KEPT:
                known, fresh = _Known(), list(names)
            made = self._made(fresh)
            for name, key in zip(fresh, made, strict=True):
                if key is not None:  # first the key, then its number: others may be reading
                    known.keys.append(self._prefix + key)
                known.numbers[name] = -1 if key is None else len(known.keys) - 1
            self._known = known
            return known

    def _made(self, names: Sequence[Any]) -> Sequence[bytes | None]:
        if not self._names:
            return self._layout.encode_rows(len(names))
        return self._layout.encode_columns([names] if len(self._names) == 1 else list(zip(*names, strict=True)))


def _coded(known: _Known, names: Sequence[Any]) -> np.ndarray:
    return np.fromiter(map(known.numbers.__getitem__, names), dtype=np.int64, count=len(names))
