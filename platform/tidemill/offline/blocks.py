"""Rows that are wanted of a row group, in blocks that lie close together: a core's cache holds what is read for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]

_ROWS = 1 << 16
"""Of one column: half a megabyte."""
_MORE = 1.25
"""How much more than the whole stretch may be read for the sake of blocks."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some consecutive of the rows that are wanted, which all lie from `first` to before `end`."""

    wanted: slice
    first: int
    end: int


def blocks_of(rows: Integers) -> list[Block]:
    """The rows in blocks; in a single one where they are in no order. There must be rows."""
    first, end = int(rows.min()), int(rows.max()) + 1
    size = -(-len(rows) * _ROWS // (end - first))
    starts = np.arange(0, len(rows), size)
    firsts, ends = np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts) + 1
    if int((ends - firsts).sum()) > _MORE * (end - first):
        return [Block(wanted=slice(0, len(rows)), first=first, end=end)]
    return [
        Block(wanted=slice(int(start), min(int(start) + size, len(rows))), first=int(least), end=int(greatest))
        for start, least, greatest in zip(starts, firsts, ends, strict=True)
    ]
