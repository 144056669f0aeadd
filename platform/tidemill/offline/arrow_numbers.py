"""Arrow columns of numbers as NumPy arrays, straight from their buffers.

`pyarrow.Array.to_numpy` would import pandas on its first call, which costs a second that nobody asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
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
