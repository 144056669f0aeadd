"""Reading the events behind windows: which columns, which rows, and each event once."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tidemill.definitions.catalog import View
from tidemill.errors import SourceError

EVENT, KNOWN = "__tidemill_event", "__tidemill_known"
_INSTANT = pl.Datetime("us", "UTC")


def deliveries(
    view: View,
    events: pl.LazyFrame,
    columns: Sequence[str],
    earliest: int,
    at: int,
    timestamp_field: str,
    known_field: str | None,
) -> pl.DataFrame:
    """The events that had happened and were known by `at` and are not older than `earliest`, each once.

    Columns: the join keys (never null), the event id, `columns`, and `EVENT` and `KNOWN` in int64 microseconds.
    """
    schema = events.collect_schema()
    named = [view.event_id] if view.event_id else []
    wanted: list[str] = list(dict.fromkeys([*view.join_keys, *named, *columns]))
    check_columns(view, schema, [timestamp_field, *wanted], known_field)
    time = utc(events, timestamp_field)
    known = time if known_field is None else pl.coalesce(utc(events, known_field), time)
    present = [pl.col(name).is_not_null() for name in view.join_keys]
    inside = events.filter(time.is_between(instant(earliest), instant(at)), known <= instant(at), *present)
    frame = inside.select(*wanted, time.dt.epoch("us").alias(EVENT), known.dt.epoch("us").alias(KNOWN)).collect()
    return frame if view.event_id is None else each_event_once(frame, view.event_id, has_known=True)


def check_columns(view: View, schema: pl.Schema, needed: Sequence[str], known_field: str | None) -> None:
    missing = [name for name in (*needed, *([known_field] if known_field else [])) if name not in schema]
    if missing:
        raise SourceError(
            f"Source {view.source!r} of view {view.name!r} has no column {', '.join(map(repr, missing))}.",
            hint=f"It has: {', '.join(schema.names())}.",
        )


def each_event_once(frame: pl.DataFrame, event_id: str, *, has_known: bool) -> pl.DataFrame:
    """Of several deliveries of one event the one that was known first. A null id names no event."""
    repeated = frame[event_id].is_duplicated() & frame[event_id].is_not_null()
    if not repeated.any():
        return frame
    rows = frame.select(event_id, *([KNOWN] if has_known else [])).with_row_index("row").filter(repeated)
    if has_known:
        rows = rows.sort(KNOWN, maintain_order=True)
    kept = rows.unique(event_id, keep="first")["row"]
    keep = (~repeated).to_numpy().copy()
    keep[kept.to_numpy()] = True
    return frame.filter(pl.Series(keep))


def utc(events: pl.LazyFrame, name: str) -> pl.Expr:
    dtype = events.collect_schema()[name]
    if dtype == _INSTANT:
        return pl.col(name)
    if not isinstance(dtype, pl.Datetime):
        raise SourceError(f"Column {name!r} is {dtype}, expected an instant.", hint="Store it as a timestamp in UTC.")
    aware = pl.col(name) if dtype.time_zone else pl.col(name).dt.replace_time_zone("UTC")
    return aware.cast(_INSTANT)


def instant(at: int) -> pl.Expr:
    return pl.lit(at, dtype=pl.Int64).cast(_INSTANT)
