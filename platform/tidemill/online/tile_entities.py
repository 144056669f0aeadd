"""Whom events are about: the keys of the entities of one view, made once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.keys import key_layout

_KEPT = 100_000


@dataclass(frozen=True, kw_only=True)
class Coded:
    """The entity of each row as a number, -1 where a join key is null, and the entities' keys by number."""

    code: np.ndarray
    keys: list[bytes]


class Entities:
    """The entities of one view, as their Redis keys: `prefix` and Feast's serialization.

    Keys are kept once made, since most events are about somebody known.
    """

    def __init__(self, catalog: Catalog, view: View, prefix: bytes) -> None:
        self.view = view
        self._layout, self._prefix = key_layout(catalog, view), prefix
        self._known: dict[Any, bytes | None] = {}

    def of(self, columns: pl.DataFrame) -> Coded:
        """Those of the rows of a frame."""
        names = self.view.join_keys
        if not names:
            return Coded(code=np.zeros(len(columns), dtype=np.int64), keys=[self.key(())])
        rows = list(zip(*(columns[name].to_list() for name in names), strict=True))
        keys = self._keys(dict.fromkeys(rows))
        numbers = {row: number for number, row in enumerate(row for row, key in keys.items() if key is not None)}
        if len(numbers) < len(keys):
            numbers |= {row: -1 for row, key in keys.items() if key is None}
        code = np.fromiter(map(numbers.__getitem__, rows), dtype=np.int64, count=len(rows))
        return Coded(code=code, keys=[key for key in keys.values() if key is not None])

    def key(self, row: tuple[Any, ...]) -> bytes:
        """The key of one entity, given the values of its join keys, none of them null."""
        key = self._known.get(row) or self._keys({row: None})[row]
        if key is None:
            raise ValueError(row)
        return key

    def _keys(self, rows: dict[Any, None]) -> dict[Any, bytes | None]:
        known = self._known
        fresh = [row for row in rows if row not in known]
        if fresh:
            if len(known) + len(fresh) > _KEPT:
                known = self._known = {}
                fresh = list(rows)
            known.update(zip(fresh, self._made(fresh), strict=True))
        return {row: known[row] for row in rows}

    def _made(self, rows: list[Any]) -> list[bytes | None]:
        columns = list(zip(*rows, strict=True))
        made = self._layout.encode_columns(columns) if columns else self._layout.encode_rows(1)
        return [None if key is None else self._prefix + key for key in made]
