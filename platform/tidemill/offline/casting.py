"""Columns as they were declared: an int64 with missing values is an int64 with nulls, never a float."""

from __future__ import annotations

import polars as pl

from tidemill.definitions.types import ValueType, from_seconds
from tidemill.errors import SourceError

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def cast_column(series: pl.Series, dtype: ValueType | None, wanted: pl.DataType, *, where: str) -> pl.Series:
    """A column in its declared type. Raises SourceError where a value would be lost.

    A float NaN in a column declared as whole numbers is how pandas writes a missing one, and becomes null; in a float
    column NaN stays NaN. Floats are rounded to the width declared. Whole numbers declared as times are seconds since
    1970, as Feast has them.
    """
    if series.dtype == wanted:
        return series
    try:
        if series.dtype.is_temporal() or wanted.is_temporal():
            return _cast_time(series, wanted)
        if (series.dtype.is_float() or series.dtype.is_decimal()) and wanted.is_integer():
            series = series.fill_nan(None) if series.dtype.is_float() else series
            cast = series.cast(wanted)
            if not series.equals(cast.cast(series.dtype), null_equal=True):
                raise SourceError(
                    _message(series, wanted, where, "it holds fractions"),
                    hint="Declare the feature as a float, or write the source with whole numbers.",
                )
            return cast
        if series.dtype == pl.String and wanted == pl.Boolean:
            return as_flags(series)
        return series.cast(wanted)
    except pl.exceptions.PolarsError as error:
        declared = wanted if dtype is None else dtype.name
        raise SourceError(
            _message(series, declared, where, str(error).splitlines()[0]),
            hint="Correct the feature's type, or write the source with the declared one.",
        ) from None


def as_flags(texts: pl.Series) -> pl.Series:
    """What folders' names say of a boolean: `true`, `false`, `1` and `0`, in capitals or not.

    Raises InvalidOperationError, naming it, for anything else.
    """
    flags = texts.str.to_lowercase().replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)
    wrong = texts.filter(flags.is_null() & texts.is_not_null())
    if len(wrong):
        raise pl.exceptions.InvalidOperationError(f"{wrong[0]!r} is neither true nor false")
    return flags


def _cast_time(series: pl.Series, wanted: pl.DataType) -> pl.Series:
    """Naive times are UTC; a zone changes how an instant is shown and never which it is."""
    if isinstance(wanted, pl.Datetime) and isinstance(series.dtype, pl.Datetime):
        zone = wanted.time_zone
        if series.dtype.time_zone is None and zone is not None:
            series = series.dt.replace_time_zone("UTC")
        return series.dt.cast_time_unit(wanted.time_unit).dt.convert_time_zone(zone or "UTC")
    if isinstance(wanted, pl.Datetime) and series.dtype == pl.Date:
        return series.cast(pl.Datetime(wanted.time_unit)).dt.replace_time_zone(wanted.time_zone)
    if isinstance(wanted, pl.Datetime) and series.dtype.is_integer():
        return from_seconds(series, wanted)
    return series.cast(wanted)


def _message(series: pl.Series, wanted: object, where: str, why: str) -> str:
    return f"Column {series.name!r} of {where} is {series.dtype} and cannot be read as {wanted}: {why}."
