"""Arrow columns of numbers as NumPy arrays, straight from their buffers, and arrays with nulls as columns.

`pyarrow.Array.to_numpy` and `pyarrow.array` would import pandas on their first call, which costs a third of a second
or more that nobody asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


def as_numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column of integers or floats without nulls; copied only where there are several chunks."""
    if isinstance(column, pa.ChunkedArray):
        parts = [as_numbers(chunk) for chunk in column.chunks]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, column.type.to_pandas_dtype())
    dtype = np.dtype(column.type.to_pandas_dtype())
    values = column.buffers()[1]
    if values is None or not len(column):
        return np.empty(len(column), dtype)
    return np.frombuffer(values, dtype, count=len(column), offset=column.offset * dtype.itemsize)


def as_mask(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """The values of a boolean column without nulls."""
    return as_numbers(pc.cast(column, pa.uint8())).astype(bool)


def as_series(name: str, values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None) -> pl.Series:
    """The values as a Polars column, null where they are `missing`; not-a-number stays what it is."""
    column = pl.Series(name, values)
    if missing is None or not missing.any():
        return column
    return column.zip_with(pl.Series(~missing), pl.Series(name, [None], dtype=column.dtype))
