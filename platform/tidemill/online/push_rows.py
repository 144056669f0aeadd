"""Rows as they are pushed, checked as a whole and typed as the definitions say, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from tidemill.clock import as_utc, to_micros
from tidemill.definitions.catalog import Catalog, Source, View
from tidemill.definitions.duration import parse_duration
from tidemill.definitions.measures import measures
from tidemill.definitions.series import as_given
from tidemill.definitions.windows import micros, needs_of
from tidemill.errors import InputError
from tidemill.offline.append import as_frame

EVENT, KNOWN = "__event_time", "__known_time"
_INSTANT = pl.Datetime("us", "UTC")


@dataclass(frozen=True, kw_only=True)
class RejectedRow:
    """A row that was not taken, by its position in the frame, and why."""

    row: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A checked frame: the rows that are taken, typed and with their times (`kept`), and as they were given (`given`).

    `ignored` are columns that no view of the stream reads.
    """

    kept: pl.DataFrame
    given: pl.DataFrame
    rejected: tuple[RejectedRow, ...]
    ignored: tuple[str, ...]


def rows_of(found: Any) -> pl.DataFrame:
    """Rows in whatever shape they came: a polars, pandas or Arrow frame, or a list of dicts (all of them looked at)."""
    if isinstance(found, list):
        try:
            frame = pl.DataFrame(found, infer_schema_length=None)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise InputError(f"The rows cannot be read as a table: {error}.", hint="Give a list of dicts.") from None
        maps = [name for name, dtype in frame.schema.items() if "Struct(" in repr(dtype)]
        return frame.with_columns(as_given(name, [row.get(name) for row in found]) for name in maps) if maps else frame
    return as_frame(found)


def time_fields(source: Source) -> tuple[str, str | None]:
    """The names of a source's event and known times after field mapping."""
    mapping = dict(source.field_mapping)
    known = source.known_field
    return (
        mapping.get(source.timestamp_field, source.timestamp_field),
        None if known is None else mapping.get(known, known),
    )


def check_rows(catalog: Catalog, stream: str, frame: pl.DataFrame, at: datetime, horizon: str) -> Batch:
    """The rows that are taken, in the types of the definitions. Raises InputError before anything is written."""
    source = catalog.source(catalog.stream(stream).source)
    timestamp, known = time_fields(source)
    views = [view for view in catalog.views_of_stream(stream) if view.is_pushed]
    if not views:
        raise InputError(
            f"No view is kept current by stream {stream!r}.", hint="Give a view this stream as its source."
        )
    frame = _in_definitions(frame, source)
    needed = needed_columns(views)
    missing = [name for name in (timestamp, *needed) if name not in frame.columns]
    if missing:
        raise InputError(
            f"Rows for stream {stream!r} lack {', '.join(map(repr, missing))}.",
            hint=f"Found: {', '.join(frame.columns)}.",
        )
    event = _instants(frame[timestamp]).alias(EVENT)
    given = known if known in frame.columns else None
    learned = _known_times(frame, given, event, at, declared=known is not None)
    columns = _typed(catalog, views, frame)
    reasons = _reasons(event, learned, views, columns, at, horizon)
    kept = pl.DataFrame([*columns.values(), event, learned])
    if reasons:
        taken = np.ones(len(frame), dtype=bool)
        taken[list(reasons)] = False
        kept, frame = kept.filter(taken), frame.filter(taken)
    return Batch(
        kept=kept,
        given=frame,
        rejected=tuple(RejectedRow(row=row, reason=reason) for row, reason in sorted(reasons.items())),
        ignored=tuple(name for name in frame.columns if name not in {timestamp, known, *needed}),
    )


def _in_definitions(frame: pl.DataFrame, source: Source) -> pl.DataFrame:
    """Columns under their names in the definitions; rows may come with the source's own names, too."""
    renames = {
        stored: defined
        for stored, defined in source.field_mapping
        if stored in frame.columns and defined not in frame.columns
    }
    return frame.rename(renames) if renames else frame


def needed_columns(views: Sequence[View]) -> list[str]:
    """The columns that views read from the rows of their stream, besides times."""
    names: dict[str, None] = {}
    for view in views:
        columns = [item.column for item in view.aggregations] if view.is_windowed else [f.name for f in view.features]
        names |= dict.fromkeys([*view.join_keys, *columns, *([view.event_id] if view.event_id else [])])
    return [name for name in names if name]


def _known_times(
    frame: pl.DataFrame, known: str | None, event: pl.Series, at: datetime, *, declared: bool
) -> pl.Series:
    """When each row was learned: its known time, the present where there is none, the event time where none is kept."""
    if not declared:
        return event.alias(KNOWN)
    if known is None:
        return pl.Series(KNOWN, np.full(len(frame), to_micros(at))).cast(_INSTANT)
    given = _instants(frame[known])
    return (given.fill_null(as_utc(at)) if given.null_count() else given).alias(KNOWN)


def _reasons(
    event: pl.Series,
    known: pl.Series,
    views: Sequence[View],
    columns: Mapping[str, pl.Series],
    at: datetime,
    horizon: str,
) -> dict[int, str]:
    """The rows that are not taken, and why."""
    latest = to_micros(at) + micros(parse_duration(horizon))
    ahead = "its {} time is further ahead of the clock than the push horizon of " + horizon
    found: dict[int, str] = {}
    for name, times in (("known", known), ("event", event)):
        found |= dict.fromkeys(np.flatnonzero(instants_of(times) > latest).tolist(), ahead.format(name))
    found |= dict.fromkeys(_rows_without_key(views, columns), "a join key is null")
    if event.null_count():
        found |= dict.fromkeys(event.is_null().arg_true().to_list(), "it has no event time")
    return found


def _rows_without_key(views: Sequence[View], columns: Mapping[str, pl.Series]) -> list[int]:
    """Rows of which no view knows whom they are about."""
    keyless: np.ndarray | None = None
    for view in views:
        partial = [columns[name] for name in view.join_keys if columns[name].null_count()]
        if not partial:
            return []
        missing = np.logical_or.reduce([series.is_null().to_numpy() for series in partial])
        keyless = missing if keyless is None else keyless & missing
    return [] if keyless is None else np.flatnonzero(keyless).tolist()


def instants_of(times: pl.Series) -> np.ndarray:
    """Int64 microseconds; 0 where there is none."""
    instants = times.to_numpy().astype("datetime64[us]", copy=False)
    if times.null_count():
        instants = np.where(np.isnat(instants), np.datetime64(0, "us"), instants)
    return instants.view(np.int64)


def _typed(catalog: Catalog, views: Sequence[View], frame: pl.DataFrame) -> dict[str, pl.Series]:
    """The columns that the views read, as the definitions type them; aggregated ones are tried now, not half-way."""
    wanted: dict[str, pl.DataType | None] = {}
    for view in views:
        wanted |= {name: dtype.polars() for name, dtype in zip(view.join_keys, catalog.key_types(view), strict=True)}
        if view.event_id:
            wanted[view.event_id] = pl.String()
        if not view.is_windowed:
            wanted |= {feature.name: feature.dtype.polars() for feature in view.features}
    columns = {name: _cast(frame[name], dtype) for name, dtype in wanted.items()}
    for view in views:
        for needs in needs_of(view) if view.is_windowed else ():
            if needs.column:
                columns.setdefault(needs.column, frame[needs.column])
                if needs.has_values:
                    measures(_without_nulls(columns[needs.column]), needs)
    return columns


def _without_nulls(series: pl.Series) -> pl.Series:
    return series.drop_nulls() if series.null_count() else series


def _cast(series: pl.Series, dtype: pl.DataType | None) -> pl.Series:
    if dtype is None or series.dtype == dtype:
        return series
    if isinstance(dtype, pl.Datetime):
        return _instants(series)
    if dtype == pl.String and not (series.dtype.is_integer() or series.dtype in (pl.Null, pl.Categorical)):
        raise _wrong_type(series, dtype)
    if dtype.is_integer() and series.dtype == pl.Boolean:
        raise _wrong_type(series, dtype)
    try:
        cast = series.cast(dtype)
    except pl.exceptions.PolarsError:
        raise _wrong_type(series, dtype) from None
    if cast.dtype != dtype:  # a struct is not cast as a whole, but field by field
        raise _wrong_type(series, dtype)
    if dtype.is_integer() and series.dtype.is_float() and not bool((cast == series).fill_null(True).all()):
        raise _wrong_type(series, dtype)
    return cast


def _wrong_type(series: pl.Series, dtype: pl.DataType) -> InputError:
    shown = series.drop_nulls().head(1).to_list()
    example = f" (such as {shown[0]!r})" if shown else ""
    return InputError(
        f"Column {series.name!r} is {series.dtype}{example}, which cannot be read as {dtype}.",
        hint="Nothing was written; send the declared type.",
    )


def _instants(series: pl.Series) -> pl.Series:
    """A column of instants in UTC microseconds: timestamps of any unit and zone (naive ones are UTC), or ISO 8601."""
    if series.dtype == _INSTANT:
        return series
    if series.dtype == pl.String:
        return _parsed(series)
    if series.dtype == pl.Null:
        return series.cast(_INSTANT)
    if not isinstance(series.dtype, pl.Datetime):
        raise _wrong_type(series, _INSTANT)
    aware = series if series.dtype.time_zone else series.dt.replace_time_zone("UTC")
    if series.dtype.time_unit == "ns":
        # Rounded up: an event of a fraction of a microsecond after an instant was not there yet.
        whole = aware.dt.epoch("ns")
        return (-((-whole) // 1_000)).cast(_INSTANT)
    return aware.dt.convert_time_zone("UTC").cast(_INSTANT)


def _parsed(series: pl.Series) -> pl.Series:
    try:
        found = [None if text is None else as_utc(datetime.fromisoformat(text)) for text in series.to_list()]
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"Column {series.name!r} holds a time that cannot be read: {error}.",
            hint="Write ISO 8601, such as 2013-10-01T08:30:00Z.",
        ) from None
    return pl.Series(series.name, found, dtype=_INSTANT)
