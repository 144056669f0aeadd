"""The spine of a training set: who is asked about, and when. Read from whatever the caller has.

A spine may be a Polars frame (lazy or not), a pandas frame, an Arrow table, the path of a Parquet file, or SQL text
over the project's sources. Its columns come back untouched; only what keys and times mean is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.clock import to_micros
from tidemill.definitions.types import ValueType
from tidemill.errors import SpineError
from tidemill.offline.families import family
from tidemill.offline.instants import NEVER, Instants, Unit, is_instant, is_text, to_instants, unit_of
from tidemill.offline.listing import resolve
from tidemill.offline.zones import has_foreign_zone, in_known_zones

CONVENTIONAL_TIME = "event_timestamp"
"""The request time's column where a spine has several and none is named: Feast's convention."""

_SQL = re.compile(r"(\s|\(|--[^\n]*\n|/\*.*?\*/)*(select|with|from|values)\b", re.IGNORECASE | re.DOTALL)
"""Text that is a query and no path; it may begin with comments and parentheses."""


@dataclass(frozen=True, kw_only=True)
class Spine:
    """Rows in the caller's order, and the instant each of them asks at."""

    frame: pl.DataFrame
    time_column: str
    instants: Instants
    unit: Unit

    def __len__(self) -> int:
        return self.frame.height

    @property
    def columns(self) -> list[str]:
        return self.frame.columns

    def slice(self, start: int, rows: int) -> Spine:
        """Some of the rows, in their order."""
        return replace(self, frame=self.frame.slice(start, rows), instants=self.instants[start : start + rows])

    def keys(self, columns: dict[str, str], *, view: str) -> pl.DataFrame:
        """The join keys of a view (as named by the view), from the spine's columns. Raises SpineError without one."""
        missing = [column for column in columns.values() if column not in self.frame.columns]
        if missing:
            raise SpineError(
                f"The spine has no column {', '.join(map(repr, missing))}, which view {view!r} is keyed by.",
                hint=f"The spine has: {', '.join(self.frame.columns)}.",
            )
        return pl.DataFrame([self.frame[column].alias(key) for key, column in columns.items()])


def read_spine(found: Any, *, root: Path, tables: Callable[[], pl.SQLContext], time_column: str | None = None) -> Spine:
    """Read a spine and its request times.

    Raises SpineError where it is nothing that can be read, has no time column, several without one being named, or a
    time that is null or cannot be understood.
    """
    frame = _frame(found, root, tables)
    if len(set(frame.columns)) != len(frame.columns):
        raise SpineError("The spine has two columns of one name.")
    column = _time_column(frame, time_column)
    if not frame.height:
        return Spine(frame=frame, time_column=column, instants=np.empty(0, np.int64), unit="us")
    arrow = frame[column].to_arrow(compat_level=pl.CompatLevel.oldest())
    unit = unit_of(arrow.type)
    try:
        instants = to_instants(arrow, unit, null=NEVER)
    except ValueError as error:
        raise SpineError(
            f"The spine's time column {column!r} cannot be read: {error}.",
            hint="Give timestamps, dates or ISO 8601 text; a time without a zone is read as UTC.",
        ) from None
    nulls = int((instants == NEVER).sum())
    if nulls:
        raise SpineError(
            f"{nulls} of {len(instants)} rows of the spine have no time in {column!r}.",
            hint="Every row must say when it asks: drop these rows, or fill in their times.",
        )
    return Spine(frame=frame, time_column=column, instants=instants, unit=unit)


def key_error(error: Exception, *, view: str, keys: Sequence[str], types: Sequence[ValueType]) -> SpineError:
    declared = ", ".join(f"{key}: {dtype.name}" for key, dtype in zip(keys, types, strict=True))
    return SpineError(
        f"A key column of the spine ({', '.join(keys)}) for view {view!r} {error}.", hint=f"Declared: {declared}."
    )


def _frame(found: Any, root: Path, tables: Callable[[], pl.SQLContext]) -> pl.DataFrame:
    if isinstance(found, pl.DataFrame):
        return found
    if isinstance(found, pl.LazyFrame):
        return _collected(found)
    if isinstance(found, pa.RecordBatch):
        found = pa.Table.from_batches([found])
    if isinstance(found, pa.Table):
        return pl.DataFrame(pl.from_arrow(in_known_zones(found)))
    if isinstance(found, str) and _SQL.match(found):
        return _query(found, tables())
    if isinstance(found, str | Path):
        return _file(found, root)
    if type(found).__module__.split(".")[0] == "pandas" and hasattr(found, "columns"):
        return _pandas(found)
    if hasattr(found, "__arrow_c_stream__"):
        return pl.DataFrame(found)
    raise SpineError(
        f"A spine cannot be a {type(found).__name__}.",
        hint="Give a Polars or pandas frame, an Arrow table, the path of a Parquet file, or SQL text.",
    )


def _collected(found: pl.LazyFrame) -> pl.DataFrame:
    try:
        return found.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SpineError(f"The lazy frame of the spine cannot be computed: {str(error).splitlines()[0]}.") from error


def _query(text: str, context: pl.SQLContext) -> pl.DataFrame:
    try:
        return context.execute(text, eager=True)
    except pl.exceptions.PolarsError as error:
        raise SpineError(
            f"The spine's SQL cannot be run: {str(error).splitlines()[0]}.",
            hint=f"Its tables are the project's sources: {', '.join(context.tables())}.",
        ) from None


def _file(found: str | Path, root: Path) -> pl.DataFrame:
    where = resolve(str(found), root)
    if "://" not in where and not Path(where).exists():
        raise SpineError(
            f"There is no spine at {where}.",
            hint="Relative paths start at the project's folder; SQL begins with SELECT.",
        )
    try:
        if Path(where).is_file() and has_foreign_zone(pq.read_schema(where)):
            return pl.DataFrame(pl.from_arrow(in_known_zones(pq.ParquetFile(where).read())))
        return pl.read_parquet(where)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise SpineError(f"The spine at {where} is not readable Parquet: {str(error).splitlines()[0]}.") from None


def _pandas(found: Any) -> pl.DataFrame:
    """A pandas frame without its index. Columns of Python datetimes may mix zones, which Polars would refuse."""
    columns: dict[str, pl.Series] = {}
    for place, name in enumerate(map(str, found.columns)):
        if name in columns:
            raise SpineError(f"The spine has two columns named {name!r}.", hint="Rename or drop one of them.")
        try:
            columns[name] = _pandas_column(name, found.iloc[:, place])
        except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError) as error:
            raise SpineError(f"Column {name!r} of the spine cannot be read: {error}.") from None
    return pl.DataFrame(columns) if columns else pl.DataFrame(height=len(found))


def _pandas_column(name: str, column: Any) -> pl.Series:
    if column.dtype == object:
        values = column.tolist()
        if any(isinstance(value, datetime) for value in values):
            return _moments(name, values)
    table = pa.table({name: pa.array(column, from_pandas=column.dtype.kind != "f")})
    return pl.DataFrame(pl.from_arrow(in_known_zones(table))).to_series()


def _moments(name: str, values: Sequence[Any]) -> pl.Series:
    """Python's and pandas' times and dates, in UTC; in nanoseconds where one of them has any."""
    finer = [getattr(value, "nanosecond", 0) for value in values]
    instants = [_micros(value) for value in values]
    if not any(finer):
        return pl.Series(name, instants, pl.Int64).cast(pl.Datetime("us", "UTC"))
    nanos = [None if at is None else at * 1_000 + more for at, more in zip(instants, finer, strict=True)]
    return pl.Series(name, nanos, pl.Int64).cast(pl.Datetime("ns", "UTC"))


def _micros(value: Any) -> int | None:
    if value is None or type(value).__name__ in {"NaTType", "NAType"} or value != value:
        return None
    if not isinstance(value, date):
        raise TypeError(f"it holds times, and {value!r}")
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return to_micros(value)


def _time_column(frame: pl.DataFrame, named: str | None) -> str:
    if named is not None:
        if named not in frame.columns:
            raise SpineError(f"The spine has no column {named!r}.", hint=f"It has: {', '.join(frame.columns)}.")
        _check_time(frame, named)
        return named
    if CONVENTIONAL_TIME in frame.columns:
        _check_time(frame, CONVENTIONAL_TIME)
        return CONVENTIONAL_TIME
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
    if len(times) == 1:
        return times[0]
    if not times:
        raise SpineError(
            f"The spine has no time column; its columns are {', '.join(frame.columns) or 'none'}.",
            hint=f"Add when each row asks as a timestamp (by convention {CONVENTIONAL_TIME!r}), or name its column.",
        )
    raise SpineError(
        f"The spine has several time columns: {', '.join(times)}.",
        hint=f"Name the request time's: time_column={times[0]!r}, or call it {CONVENTIONAL_TIME!r}.",
    )


def _check_time(frame: pl.DataFrame, column: str) -> None:
    dtype = frame[column].head(0).to_arrow(compat_level=pl.CompatLevel.oldest()).type
    if frame.height and not (is_instant(dtype) or is_text(dtype) or pa.types.is_null(dtype)):
        raise SpineError(
            f"The spine's time column {column!r} is {family(dtype)} ({frame.schema[column]}), not a time.",
            hint="Give timestamps, dates or ISO 8601 text.",
        )
