"""Python values as a column of their declared type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tidemill.definitions.types import ValueType


def declared_series(name: str, values: Sequence[Any], dtype: ValueType) -> pl.Series:
    """A column of values, null where one is None, in the type that Polars has for the declared one.

    Maps and decimals have none. Polars would make records of maps that all have the same fields, and give all decimals
    the same places: such a column is made only where it holds the very values that were given, and else one of Python
    objects.

    Raises TypeError or PolarsError where a value is not of the type.
    """
    wanted = dtype.polars()
    return pl.Series(name, values, dtype=wanted) if wanted is not None else as_given(name, values)


def as_given(name: str, values: Sequence[Any]) -> pl.Series:
    """A column of the type that Polars finds where it holds the very values, and of Python objects elsewhere."""
    try:
        found = pl.Series(name, values)
        if _holds(found, values):
            return found
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        pass  # maps that are unlike each other
    return pl.Series(name, values, dtype=pl.Object)


def _holds(found: pl.Series, values: Sequence[Any]) -> bool:
    """The very values: a whole number is not the float of the same size, nor 0.5 the decimal 0.50."""
    return "Object" not in repr(found.dtype) and repr(found.to_list()) == repr(list(values))
