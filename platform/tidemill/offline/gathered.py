"""Columns of an answer while they are gathered: every row group puts its values straight to the rows that ask for them.

Columns of numbers that are stored as declared are copied once, from what was read to where they belong; row groups lie
apart in the answer, so that threads need no lock. All other columns are gathered part by part and brought into order
at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from tidemill.offline.arrow_numbers import as_mask, as_numbers
from tidemill.offline.taking import taken

Places = npt.NDArray[np.int64]

_NUMBERS: dict[pl.DataType, pa.DataType] = {
    pl.Float64(): pa.float64(),
    pl.Float32(): pa.float32(),
    pl.Int64(): pa.int64(),
    pl.Int32(): pa.int32(),
}


def is_number(stored: pa.DataType, wanted: pl.DataType) -> bool:
    """Whether values stored as this Arrow type are the wanted numbers bit for bit."""
    return _NUMBERS.get(wanted) == stored


class Numbers:
    """A column of numbers for `rows` rows, null until something is put there."""

    def __init__(self, rows: int, dtype: pl.DataType) -> None:
        self._type = _NUMBERS[dtype]
        self._values: npt.NDArray[Any] = np.zeros(rows, self._type.to_pandas_dtype())
        self._missing = np.zeros(rows, bool)

    def put(self, where: Places, column: pa.ChunkedArray, rows: Places) -> None:
        """The values at `rows` of a column that was read go to the places `where` of the answer."""
        values = taken(as_numbers(column), rows)
        if column.null_count:
            missing = as_mask(column.is_null())[rows]
            values[missing] = 0
            self._missing[where] = missing
        self._values[where] = values

    def put_values(self, where: Places, values: npt.NDArray[Any]) -> None:
        """Values of which none is null go to the places `where` of the answer."""
        self._values[where] = values

    def series(self, name: str, held: npt.NDArray[np.bool_]) -> pl.Series:
        """The column; rows that are not `held` are null. Nothing is copied."""
        present = held & ~self._missing if self._missing.any() else held
        validity = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
        values = pa.Array.from_buffers(self._type, len(held), [validity, pa.py_buffer(self._values)])
        return pl.Series(name, pl.from_arrow(values))


def in_order(parts: Sequence[pl.DataFrame], order: Places, rows: int) -> pl.DataFrame:
    """Frames that together hold the rows `order` of an answer of `rows` rows, as that answer; other rows are null."""
    found = pl.concat(parts, how="vertical", rechunk=True) if len(parts) > 1 else parts[0]
    place = np.full(rows, found.height, np.uint32)
    place[order] = np.arange(found.height, dtype=np.uint32)
    return found.select(pl.all().gather(pl.Series(place), null_on_oob=found.height < rows))
