"""Frames against contracts: the good rows and the bad ones with their reasons, from one lazy plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from tidemill.errors import SourceError
from tidemill.extract.contract import Contract

REASON = "__reason"
_SEPARATOR = "; "


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A frame split in two. `bad` has the same columns and `__reason`, which names every fault of the row."""

    good: pl.DataFrame
    bad: pl.DataFrame

    @property
    def height(self) -> int:
        return self.good.height + self.bad.height

    def reasons(self) -> list[tuple[str, int]]:
        """Each fault with the number of rows that have it, the most frequent first."""
        return count_reasons(self.bad)


def count_reasons(bad: pl.DataFrame) -> list[tuple[str, int]]:
    """Each fault of quarantined rows with the number of rows that have it, the most frequent first."""
    if bad.is_empty():
        return []
    counted = bad.get_column(REASON).str.split(_SEPARATOR).explode().value_counts(sort=True, name="rows")
    return sorted(counted.iter_rows(), key=lambda item: (-item[1], item[0]))


def conform(frame: pl.DataFrame, contract: Contract, source: str) -> pl.DataFrame:
    """The frame in the contract's types, where nothing can get lost on the way.

    Conversions that are made: a wider integer or float, a whole-numbered column to float where every value is exact and
    back (pandas has fractions where a number is missing), another unit of an instant that keeps its value, an instant
    without a zone as UTC, a date as its midnight in UTC, categories to text, a column without any value to any type.
    Raises SourceError for a missing column or any other type.
    """
    missing = [name for name in contract.columns if name not in frame.columns]
    if missing:
        raise SourceError(
            f"The extraction of {source!r} lacks the columns {', '.join(missing)}; "
            f"it has {', '.join(frame.columns) or 'none'}.",
            hint="Bring them back at the source, or change the contract.",
        )
    wanted = [(name, column.dtype) for name, column in contract.columns.items() if frame.schema[name] != column.dtype]
    return (
        frame
        if not wanted
        else frame.with_columns(_converted(frame.get_column(name), dtype, source) for name, dtype in wanted)
    )


def check(frame: pl.DataFrame, contract: Contract, *, required: Sequence[str] = ()) -> Checked:
    """Split a conformed frame into good and bad rows. `required` columns may not be null in any case."""
    marked = frame.lazy().with_columns(_reasons(row_faults(contract, required)).alias(REASON))
    if contract.unique:
        again = ~pl.struct(contract.unique).is_first_distinct().over(pl.col(REASON) == "")
        fault = f"{', '.join(contract.unique)} was there before"
        repeated = (pl.col(REASON) == "") & again
        marked = marked.with_columns(pl.when(repeated).then(pl.lit(fault)).otherwise(REASON).alias(REASON))
    found = marked.collect()
    is_bad = found.get_column(REASON) != ""
    if not is_bad.any():
        return Checked(good=frame, bad=found.clear())
    return Checked(good=found.filter(~is_bad).drop(REASON), bad=found.filter(is_bad))


def row_faults(contract: Contract, required: Sequence[str] = ()) -> dict[str, pl.Expr]:
    """Everything that can be wrong with one row: the sentence, and the expression that is true where it is."""
    faults = {f"{name} is null": pl.col(name).is_null() for name in required}
    for name, column in contract.columns.items():
        faults |= column.faults(name)
    return faults


def check_volume(rows: int, interval: timedelta | None, contract: Contract, source: str) -> None:
    """Raise SourceError where an interval has too few or too many rows. None is a source that lands once."""
    least, most = contract.rows if interval is None else contract.volume(interval)
    if rows < least or (most is not None and rows > most):
        expected = f"at least {least:,}" if most is None else f"{least:,} to {most:,}"
        raise SourceError(
            f"The extraction of {source!r} has {rows:,} rows where its contract expects {expected}.",
            hint="See whether the source is complete; if this is what it is like now, change rows=(least, most).",
        )


def check_share(checked: Checked, contract: Contract, source: str, *, kept: Path | None = None) -> None:
    """Raise SourceError where more rows are bad than the contract bears; `kept` is where they can be looked at."""
    bearable = math.ceil(contract.most_bad * checked.height)
    if checked.bad.height > bearable:
        found = ", ".join(f"{reason} ({count:,})" for reason, count in checked.reasons()[:5])
        raise SourceError(
            f"{checked.bad.height:,} of {checked.height:,} rows extracted for {source!r} break its contract, "
            f"where {bearable:,} may: {found}.",
            hint=f"The bad rows are in {kept}; no row of the interval landed." if kept else None,
        )


def _reasons(faults: dict[str, pl.Expr]) -> pl.Expr:
    if not faults:
        return pl.lit("")
    # A fault that is null, such as a comparison with a missing value, is no fault.
    said = {name.replace(_SEPARATOR, ", "): fault for name, fault in faults.items()}
    named = [pl.when(fault).then(pl.lit(name)) for name, fault in said.items()]
    return pl.concat_str(named, separator=_SEPARATOR, ignore_nulls=True)


def _converted(values: pl.Series, dtype: pl.DataType, source: str) -> pl.Series:
    if values.null_count() == len(values):
        return pl.Series(values.name, [None] * len(values), dtype=dtype)
    if isinstance(dtype, pl.Datetime) and isinstance(values.dtype, pl.Datetime):
        return _instants(values, dtype, source)
    if isinstance(dtype, pl.Datetime) and values.dtype == pl.Date:
        return _instants(values.cast(pl.Datetime("us")), dtype, source)
    if dtype == pl.String and isinstance(values.dtype, pl.Categorical | pl.Enum):
        return values.cast(dtype)
    if _are_numbers(values, dtype):
        converted = values.cast(dtype, strict=False)
        if converted.cast(values.dtype, strict=False).equals(values, null_equal=True):
            return converted
    raise SourceError(
        f"The column {values.name!r} extracted for {source!r} is {values.dtype}; its contract says {dtype}.",
        hint="Give the reader schema=CONTRACT.schema, convert it in the extraction, or change the contract.",
    )


def _are_numbers(values: pl.Series, dtype: pl.DataType) -> bool:
    if dtype.is_float():
        return values.dtype.is_numeric()
    # Of fractions beyond this some whole numbers are missing: what stands there may have been another.
    exact = 2 ** (24 if values.dtype == pl.Float32 else 53)
    return dtype.is_integer() and (
        values.dtype.is_integer() or (values.dtype.is_float() and bool((values.abs() <= exact).all()))
    )


def _instants(values: pl.Series, dtype: pl.Datetime, source: str) -> pl.Series:
    zone = values.dtype.time_zone  # pyright: ignore[reportAttributeAccessIssue] - checked to be a Datetime
    if dtype.time_zone is not None:
        known = values.dt.replace_time_zone("UTC") if zone is None else values
        values = known.dt.convert_time_zone(dtype.time_zone)
    elif zone is not None:
        values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    converted = values.dt.cast_time_unit(dtype.time_unit)
    if not converted.dt.cast_time_unit(values.dtype.time_unit).equals(values, null_equal=True):  # pyright: ignore[reportAttributeAccessIssue]
        raise SourceError(
            f"The instants of {values.name!r} extracted for {source!r} are finer than {dtype.time_unit} can tell.",
            hint=f"Truncate them in the extraction, or declare pl.Datetime({values.dtype.time_unit!r}, 'UTC').",  # pyright: ignore[reportAttributeAccessIssue]
        )
    return converted
