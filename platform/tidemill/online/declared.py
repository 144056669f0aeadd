"""A column in the type that its definition declares, and its values as arrays to make bytes of."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.online.pieces import Bytes


def as_declared(dtype: ValueType, column: pl.Series) -> pl.Series:
    """The column in its declared type. Raises InputError where a value would change by that."""
    wanted = dtype.polars()
    if wanted is None or column.dtype == wanted:
        return column
    if dtype is ValueType.STRING and isinstance(column.dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if dtype is ValueType.UNIX_TIMESTAMP and isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is None:
        column = column.dt.replace_time_zone("UTC")
    mixed = (column.dtype == pl.String) != (wanted == pl.String) and column.dtype != pl.Null and not dtype.is_list
    try:
        if mixed:
            raise TypeError(f"they are {column.dtype}")
        if dtype.is_integer and column.dtype.is_float() and (column.drop_nulls() % 1 != 0).any():
            raise TypeError("they are not whole numbers")
        return column.cast(wanted, strict=True)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise InputError(
            f"The values of {column.name!r} are not {dtype.name}: {error}.",
            hint="Change the source, or the declared type, and apply.",
        ) from error


def filled(column: pl.Series, value: Any) -> pl.Series:
    """The column with `value` for null. Most have none, and asking is quicker than Polars's way of filling nothing."""
    return column.fill_null(value) if column.null_count() else column


def micros_of(column: pl.Series, *, missing: int = 0) -> np.ndarray:
    """Microseconds since 1970 UTC; null is `missing`."""
    return filled(column.cast(pl.Datetime("us", "UTC")).cast(pl.Int64), missing).to_numpy()


def seconds_of(column: pl.Series) -> np.ndarray:
    """Whole seconds since 1970, rounded down: Feast's format has no more. Null is 0."""
    if column.dtype.is_temporal():
        return micros_of(column) // 1_000_000
    return filled(column.cast(pl.Int64), 0).to_numpy()


def flat_texts(column: pl.Series) -> tuple[Bytes, np.ndarray]:
    """A text column's bytes without gaps, and the length of each value (0 for null)."""
    array = filled(column.cast(pl.Binary), b"").to_arrow()
    import pyarrow as pa

    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    flat = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    return flat[offsets[0] : offsets[-1]], np.diff(offsets)
