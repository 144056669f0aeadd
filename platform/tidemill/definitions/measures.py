"""The values of an aggregated column as numbers: int64 or float64, the same offline and in a pushed batch."""

from __future__ import annotations

import numpy as np
import polars as pl

from tidemill.definitions.windows import ColumnNeeds
from tidemill.errors import InputError


def measures(values: pl.Series, needs: ColumnNeeds) -> np.ndarray:
    """The numbers of a column without nulls.

    Raises InputError for text and other types that have no number, and where a column whose features are declared whole
    (INT64, BOOL, ...) holds a fraction or NaN.
    """
    if not _has_number(values.dtype):
        raise InputError(
            f"Column {values.name!r} is {values.dtype}, and its windows aggregate numbers.",
            hint="Only count and count_distinct work on other types.",
        )
    return _whole(values) if needs.whole else _as_float(values)


def _has_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype.is_decimal() or dtype in (pl.Boolean, pl.Null) or dtype.is_temporal()


def _as_float(values: pl.Series) -> np.ndarray:
    if values.dtype.is_temporal():
        return _micros(values).astype(np.float64)
    return values.cast(pl.Float64).to_numpy()


def _whole(values: pl.Series) -> np.ndarray:
    if values.dtype.is_float() or values.dtype.is_decimal():
        return _whole_of_floats(values.name, values.cast(pl.Float64).to_numpy())
    if values.dtype.is_temporal():
        return _micros(values)
    try:
        return values.cast(pl.Int64).to_numpy()
    except pl.exceptions.InvalidOperationError as error:
        raise InputError(
            f"Column {values.name!r} holds {values.max()}, which is no int64.", hint="Declare its features DOUBLE."
        ) from error


def _whole_of_floats(name: str, values: np.ndarray) -> np.ndarray:
    fits = (np.floor(values) == values) & (np.abs(values) < 2.0**63)
    if not bool(fits.all()):
        raise InputError(
            f"Column {name!r} holds {values[~fits][0]}, but a feature of it is declared whole (INT64, INT32 or BOOL).",
            hint="Declare its sum, min, max, first and last as DOUBLE (Float64), or clean the source.",
        )
    return values.astype(np.int64)


def _micros(values: pl.Series) -> np.ndarray:
    if values.dtype == pl.Date:
        values = values.cast(pl.Datetime("us"))
    if values.dtype == pl.Datetime:
        return values.dt.epoch("us").to_numpy()
    if values.dtype == pl.Duration:
        return values.dt.total_microseconds().to_numpy()
    return values.cast(pl.Int64).to_numpy()
