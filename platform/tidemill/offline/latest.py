"""The newest row of each key: what a materialization writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.offline.files import RowGroup
from tidemill.offline.history import History
from tidemill.offline.instants import FOREVER, NEVER, Unit
from tidemill.offline.scan import as_datetimes

EVENT_TIME = "__event_time"
KNOWN_TIME = "__known_time"
_EVENT, _KNOWN, _POSITION = "__event", "__known", "__position"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Which rows a run is about, in the unit of the source: events in `(start, end]`, and late ones.

    A row is late if its event lies before the interval but it became known after `known_after`.
    """

    start: int
    end: int
    known_after: int | None


@dataclass(frozen=True, kw_only=True)
class Latest:
    """The newest row of each key with how many rows were looked at, and how many had a null key."""

    frame: pl.DataFrame
    rows_read: int
    null_keys: int


def newest_rows(
    history: History, view: View, catalog: Catalog, interval: Interval, *, share: tuple[int, int] | None = None
) -> Latest:
    """The newest row of each key in the interval; columns: join keys, features, event time and known time.

    With `share` (i, n) only the i-th of n disjoint parts of the keys, so that a part fits in memory.
    """
    unit = history.times.unit
    keys = list(view.join_keys)
    history.files.require([*keys, *(feature.name for feature in view.features)])
    found: list[pl.DataFrame] = []
    read = null_keys = 0
    for groups in history.grouped(keys, lambda group: _may_matter(history, group, interval, unit)):
        rows = _rows(history, groups, keys, catalog, view, interval, unit)
        if share is not None and keys:
            rows = rows.filter(rows.select(keys).hash_rows(seed=0) % share[1] == share[0])
        whole = rows.drop_nulls(keys) if keys else rows
        read += rows.height
        null_keys += rows.height - whole.height
        found.append(_newest(whole, keys))
    winners = _newest(pl.concat(found), keys) if found else None
    return Latest(frame=_gathered(history, view, catalog, winners, unit), rows_read=read, null_keys=null_keys)


def _may_matter(history: History, group: RowGroup, interval: Interval, unit: Unit) -> bool:
    """Whether a row group can hold a row of the interval, by its statistics: time follows what changed."""
    least, greatest = history.files.bounds(group, history.times.event, unit)
    if least > interval.end:
        return False
    if greatest > interval.start:
        return True
    if interval.known_after is None:
        return False
    known = history.times.known
    return (greatest if known is None else history.files.bounds(group, known, unit)[1]) > interval.known_after


def _rows(
    history: History,
    groups: list[RowGroup],
    keys: list[str],
    catalog: Catalog,
    view: View,
    interval: Interval,
    unit: Unit,
) -> pl.DataFrame:
    """Keys, times and positions of the rows in the interval."""
    types = dict(zip(keys, catalog.key_types(view), strict=True))
    table = history.files.read(groups, list(dict.fromkeys([*keys, *history.time_columns])))
    event, known = history.instants(table, unit)
    use = (event != NEVER) & (event <= interval.end)
    fresh = event > interval.start
    if known is not None:
        use &= known <= interval.end
        if interval.known_after is not None:
            fresh |= known > interval.known_after
    elif interval.known_after is not None:
        fresh |= event > interval.known_after
    place = np.flatnonzero(use & fresh)
    columns = history.typed(table.select(keys), types, place)
    return columns.with_columns(
        pl.Series(_EVENT, event[place]),
        pl.Series(_KNOWN, (event if known is None else known)[place]),
        pl.Series(_POSITION, place + groups[0].offset),
    )


def _newest(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    ordered = rows.sort(_EVENT, _KNOWN, _POSITION)
    return ordered.unique(keys, keep="last", maintain_order=True) if keys else ordered.tail(1)


def _gathered(history: History, view: View, catalog: Catalog, winners: pl.DataFrame | None, unit: Unit) -> pl.DataFrame:
    types = dict(zip(view.join_keys, catalog.key_types(view), strict=True))
    types |= {feature.name: feature.dtype for feature in view.features}
    if winners is None:
        frame = history.gather(np.empty(0, np.int64), types)
        event = known = np.empty(0, np.int64)
    else:
        winners = winners.sort(_POSITION)
        frame = history.gather(winners[_POSITION].to_numpy(), types)
        event, known = winners[_EVENT].to_numpy(), winners[_KNOWN].to_numpy()
    known = np.where(known == NEVER, event, known)
    return frame.with_columns(
        as_datetimes(event, name=EVENT_TIME, unit=unit), as_datetimes(known, name=KNOWN_TIME, unit=unit)
    )


def interval_of(start: int | None, end: int, known_after: int | None) -> Interval:
    return Interval(start=NEVER if start is None else start, end=min(end, FOREVER - 1), known_after=known_after)
