"""What a source promises about its rows: columns and types, nulls, ranges, uniqueness, volume.

A promise about a single row that is broken costs that row: it goes to quarantine with the reason. A promise about the
whole that is broken (a column is missing or of another type, far too few or too many rows, too many bad ones) stops
the run, and nothing lands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from tidemill.clock import as_utc
from tidemill.definitions.duration import parse_duration
from tidemill.errors import DefinitionError

_PYTHON_TYPES: dict[type, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
    bytes: pl.Binary(),
    date: pl.Date(),
    datetime: pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Column:
    """One column of a contract.

    Args:
        dtype: a Polars type, or one of str, int, float, bool, bytes, date and datetime (microseconds, UTC).
        nullable: whether a row may leave it empty.
        min: the least value allowed, itself included.
        max: the greatest value allowed, itself included. Where a bound is given, not-a-number is refused too.
        allowed: the only values there may be, besides null.
    """

    dtype: Any
    nullable: bool = field(default=True, kw_only=True)
    min: Any = field(default=None, kw_only=True)
    max: Any = field(default=None, kw_only=True)
    allowed: Sequence[Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _polars_type(self.dtype))
        for bound in ("min", "max"):
            if getattr(self, bound) is not None:
                object.__setattr__(self, bound, _bound(getattr(self, bound), self.dtype))
        if self.min is not None and self.max is not None and self.min > self.max:
            raise DefinitionError(f"A column cannot be at least {self.min} and at most {self.max}.")
        if self.allowed is not None and (isinstance(self.allowed, str) or not self.allowed):
            raise DefinitionError(f"allowed={self.allowed!r} allows nothing.", hint="Give a list of values.")
        if self.allowed is not None:
            object.__setattr__(self, "allowed", _allowed(self.allowed, self.dtype))

    def faults(self, name: str) -> dict[str, pl.Expr]:
        """What can be wrong with a value, each as the sentence people read and the expression that is true of it."""
        value = pl.col(name)
        found: dict[str, pl.Expr] = {}
        if not self.nullable:
            found[f"{name} is null"] = value.is_null()
        if (self.min, self.max) != (None, None) and self.dtype.is_float():
            found[f"{name} is not a number"] = value.is_nan()
        if self.min is not None:
            found[f"{name} is less than {self.min}"] = value < self.min
        if self.max is not None:
            not_a_number = value.is_nan() if self.dtype.is_float() else pl.lit(value=False)
            found[f"{name} is more than {self.max}"] = (value > self.max) & ~not_a_number
        if self.allowed is not None:
            listed = pl.lit(pl.Series(list(self.allowed), dtype=self.dtype)).implode()
            found[f"{name} is not one of {_listed(self.allowed)}"] = ~value.is_in(listed)
        return found


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What every interval of a source must look like.

    Args:
        columns: the columns that must be there, as a `Column` or just its type. Others may be there too.
        unique: columns that together name a row; within an interval the first such row is kept and the others are bad.
            Between intervals a row may come again, as a correction that became known later.
        rows: the least and the greatest number of rows in `per`. A longer interval may hold as many times more as it
            is longer; of a shorter one only the greatest number is asked.
        per: the length of time that `rows` speaks of.
        most_bad: the share of rows that may be bad, rounded up to whole rows. Beyond it the run stops.
    """

    columns: Mapping[str, Any]
    unique: tuple[str, ...] = ()
    rows: tuple[int, int | None] = (0, None)
    per: str | timedelta = "1d"
    most_bad: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", {name: _as_column(item) for name, item in self.columns.items()})
        object.__setattr__(self, "unique", (self.unique,) if isinstance(self.unique, str) else tuple(self.unique))
        object.__setattr__(self, "per", parse_duration(self.per))
        missing = [name for name in self.unique if name not in self.columns]
        least, most = self.rows
        if missing:
            raise DefinitionError(f"unique names columns that the contract does not have: {', '.join(missing)}.")
        if least < 0 or (most is not None and most < least) or self.length <= timedelta(0):
            raise DefinitionError(f"rows={self.rows} per {self.length} is no range.", hint="Write rows=(least, most).")
        if not 0 <= self.most_bad <= 1:
            raise DefinitionError(f"most_bad={self.most_bad} is no share.", hint="Write a number from 0 to 1.")

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns' types, for a reader that must be told them."""
        return {name: column.dtype for name, column in self.columns.items()}

    @property
    def length(self) -> timedelta:
        return parse_duration(self.per)

    def volume(self, interval: timedelta) -> tuple[int, int | None]:
        """The least and the greatest number of rows for an interval of this length."""
        least, most = self.rows
        whole, rest = divmod(interval, self.length)
        return least * whole, None if most is None else most * (whole + bool(rest))


def _bound(value: Any, dtype: pl.DataType) -> Any:
    """What values of the column are compared with."""
    bound = _instant(value, dtype)
    try:
        if bound == bound:  # not-a-number is no bound
            pl.Series([None], dtype=dtype).to_frame("x").select(pl.col("x") < bound)
            return bound
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        pass
    raise DefinitionError(
        f"Values of a column of {dtype} cannot be compared with {value!r}.", hint="Give a value of the column's type."
    )


def _allowed(values: Sequence[Any], dtype: pl.DataType) -> tuple[Any, ...]:
    found = tuple(_instant(value, dtype) for value in values)
    try:
        pl.Series(found, dtype=dtype)
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        raise DefinitionError(
            f"allowed={list(values)!r} are no values of {dtype}.", hint="Give values of the column's type."
        ) from None
    return found


def _instant(value: Any, dtype: pl.DataType) -> Any:
    """An instant without a zone is UTC."""
    if not isinstance(value, datetime) or not isinstance(dtype, pl.Datetime):
        return value
    return as_utc(value) if dtype.time_zone is not None else as_utc(value).replace(tzinfo=None)


def _as_column(item: Any) -> Column:
    return item if isinstance(item, Column) else Column(item)


def _polars_type(dtype: Any) -> pl.DataType:
    if isinstance(dtype, DataType):
        return dtype
    if isinstance(dtype, DataTypeClass):
        return pl.Datetime("us", "UTC") if dtype is pl.Datetime else dtype()
    if isinstance(dtype, type) and dtype in _PYTHON_TYPES:
        return _PYTHON_TYPES[dtype]
    raise DefinitionError(
        f"{dtype!r} is no type of a column.",
        hint=f"Use a Polars type, or one of {', '.join(kind.__name__ for kind in _PYTHON_TYPES)}.",
    )


def _listed(values: Sequence[Any], most: int = 8) -> str:
    shown = ", ".join(map(str, values[:most]))
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
