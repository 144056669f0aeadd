"""Windowed aggregations over history: for every row (keys, cut-off) the view's features as they stood.

One pass reads the events once; `timeline` brings them into order of key and time, `slices` aggregates any number of
windows over them. Which events count is said in `tidemill.definitions.windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, View
from tidemill.definitions.partials import ADDED, Partials, declared, finish, held
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import FAR_FUTURE, FAR_PAST, longest_window, lower_bound, micros, needs_of
from tidemill.errors import InputError
from tidemill.offline.arrow_numbers import as_series
from tidemill.offline.instants import Instants, Unit, to_unit
from tidemill.offline.timeline import Labels, Reach, Timeline, in_time_order, reaches, timelines
from tidemill.offline.window_columns import Column, newest_ranks, partials_of
from tidemill.offline.window_events import EVENT, KNOWN, as_key, check_columns, each_event_once, instant, utc

_Window = tuple[int, int]
_Slices = dict[_Window, list[Reach]]
"""For each window, given by length and hop, the reach within every class of lateness."""

_CODE = "__tidemill_code"
_TABLE_ROWS = 1_000_000
_PER_MICROSECOND: dict[Unit, int] = {"us": 1, "ns": 1_000}


def window_values(
    view: View,
    events: pl.LazyFrame | Sequence[pl.LazyFrame],
    keys: pl.DataFrame,
    upto: np.ndarray,
    known_upto: np.ndarray,
    *,
    timestamp_field: str,
    known_field: str | None = None,
    with_event_time: bool = False,
    features: Sequence[str] | None = None,
    unit: Unit = "us",
    refuse: bool = True,
) -> pl.DataFrame:
    """The view's features for every row of `keys`, in its order, in the declared types.

    An event counts where its keys are equal, `lower bound <= event <= upto` and `known <= known_upto`.

    Args:
        view: a windowed view.
        events: the source's rows: join keys, timestamp, known time, aggregated columns, event id (others are not read).
            Times are UTC. Rows without an event time are left out; a null known time is read as the event time. Of
            events with the same id only the one known first counts. Of several frames, which follow each other, only
            the events of these keys are held at one time.
        keys: n rows with the view's join keys (none for a view without entities). A null matches nothing.
        upto: int64 instants, length n: the windows' leading edges.
        known_upto: int64 instants, length n: what had been learned by then counts.
        with_event_time: add `__event_time`, the newest event that counted in the longest window.
        features: only these, in this order; all of the view's unless given.
        unit: of `upto` and `known_upto`, in which events are compared with them; at least as fine as the events'.
        refuse: whether a number that its declared type cannot hold is refused; it is null otherwise, as it is online.

    Raises:
        SourceError: a column is missing. InputError: a column cannot be aggregated as declared, or a number is refused.
    """
    wanted = _aggregations(view, features)
    code, distinct = _code_keys(keys, view.join_keys, len(upto))
    labels = Labels.of(code, np.asarray(upto, dtype=np.int64), np.asarray(known_upto, dtype=np.int64))
    pieces = [events] if isinstance(events, pl.LazyFrame) else events
    history = _read(view, pieces, distinct, labels, wanted, timestamp_field, known_field, unit)
    longest = _longest_with_hop(view, unit) if with_event_time else None
    windows = [_window(item, unit) for item in wanted] + ([] if longest is None else [longest])
    slices = _slices(history, labels, list(dict.fromkeys(windows)))
    found = _evaluate(view, history, labels, wanted, slices, len(upto), refuse=refuse)
    if longest is not None:
        found.append(_event_times(history, labels, slices[longest], len(upto)))
    return pl.DataFrame(found) if found else pl.DataFrame(height=len(upto))


def span_of(view: View, upto: Instants, unit: Unit = "us") -> tuple[int, int]:
    """The closed stretch of event time that can matter to windows up to these instants; empty if nobody asks."""
    asking = upto[upto > FAR_PAST]
    if not len(asking):
        return FAR_FUTURE, FAR_PAST
    least, greatest = (int(np.clip(edge, FAR_PAST, FAR_FUTURE)) for edge in (asking.min(), asking.max()))
    windows = {_window(item, unit) for item in view.aggregations}
    return min(lower_bound(least, *window) for window in windows), greatest


def latest_windows(
    view: View,
    events: pl.LazyFrame,
    *,
    start: datetime | None,
    end: datetime,
    timestamp_field: str,
    known_field: str | None = None,
    unit: Unit = "us",
) -> pl.DataFrame:
    """The view's features at the cut-off `end`, for every key that has an event in its longest window.

    Keys whose windows have emptied since `start` (the last cut-off) are among them, so that their values are brought up
    to date as well. Columns: join keys, features, `__event_time` and `__known_time`, both `end`. Events are compared in
    `unit`.
    """
    first, last = span_of_run(view, start, end, unit)
    time = utc(events, timestamp_field, unit)
    keys = _keys_of(events.filter(time.is_between(instant(first, unit), instant(last, unit))), view.join_keys)
    at = np.full(len(keys), last)
    fields = {"timestamp_field": timestamp_field, "known_field": known_field}
    values = window_values(view, events, keys, at, at, unit=unit, **fields)
    stamp = instant(to_micros(end))
    return keys.with_columns(values.get_columns()).with_columns(__event_time=stamp, __known_time=stamp)


def span_of_run(view: View, start: datetime | None, end: datetime, unit: Unit = "us") -> tuple[int, int]:
    """The closed stretch of event time that a run up to `end`, after one up to `start`, looks at."""
    cutoff = to_unit(end, unit)
    since = cutoff if start is None else min(to_unit(start, unit), cutoff)
    return lower_bound(since, *_longest_with_hop(view, unit)), cutoff


def _keys_of(events: pl.LazyFrame, join_keys: tuple[str, ...]) -> pl.DataFrame:
    """The distinct keys in order; a row without columns where there are no keys but events."""
    if not join_keys:
        return pl.DataFrame(height=events.select(pl.len()).head(1).collect().item() and 1)
    return events.select(join_keys).unique().drop_nulls().sort(join_keys).collect()


@dataclass(frozen=True, kw_only=True)
class _History:
    """Events in time order: arrays and columns of equal length."""

    code: np.ndarray
    event: np.ndarray
    known: np.ndarray | None
    columns: pl.DataFrame
    unit: Unit
    fixed: bool

    @cached_property
    def classes(self) -> list[Timeline]:
        return timelines(self.code, self.event, self.known, fixed=self.fixed)


def _aggregations(view: View, features: Sequence[str] | None) -> tuple[Aggregation, ...]:
    by_name = {item.name: item for item in view.aggregations}
    names = [item.name for item in view.features] if features is None else features
    return tuple(by_name[view.feature(name).name] for name in names)


def _code_keys(keys: pl.DataFrame, join_keys: tuple[str, ...], rows: int) -> tuple[np.ndarray, pl.DataFrame]:
    """Dense codes of the key rows, -1 for a null key; and the distinct keys with their codes."""
    if not join_keys:
        return np.zeros(rows, dtype=np.int64), pl.DataFrame()
    distinct = keys.select(join_keys).unique().drop_nulls().with_row_index(_CODE)
    coded = keys.select(join_keys).join(distinct, on=list(join_keys), how="left", maintain_order="left")
    return coded[_CODE].cast(pl.Int64).fill_null(-1).to_numpy(), distinct


def _read(
    view: View,
    pieces: Sequence[pl.LazyFrame],
    distinct: pl.DataFrame,
    labels: Labels,
    wanted: tuple[Aggregation, ...],
    timestamp_field: str,
    known_field: str | None,
    unit: Unit,
) -> _History:
    """The events that can matter to these labels, in time order, each once."""
    needed = _needed_columns(view, wanted)
    frames = []
    for events in pieces:
        schema = events.collect_schema()
        check_columns(view, schema, [*view.join_keys, timestamp_field, *needed], known_field)
        frames.append(_select(view, events, schema, distinct, labels, needed, timestamp_field, known_field, unit))
    frame = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed", rechunk=True)
    if view.event_id is not None:
        frame = each_event_once(frame, view.event_id, has_known=known_field is not None)
    return _in_order(frame, wanted, needed, bool(view.join_keys), known_field is not None, unit)


def _needed_columns(view: View, wanted: tuple[Aggregation, ...]) -> list[str]:
    columns = {item.column for item in wanted if item.column}
    return sorted(columns | ({view.event_id} if view.event_id else set()))


def _select(
    view: View,
    events: pl.LazyFrame,
    schema: pl.Schema,
    distinct: pl.DataFrame,
    labels: Labels,
    needed: list[str],
    timestamp_field: str,
    known_field: str | None,
    unit: Unit,
) -> pl.DataFrame:
    time = utc(events, timestamp_field, unit)
    earliest, latest = span_of(view, labels.upto, unit)
    columns = [time.to_physical().alias(EVENT), *needed]
    if known_field is not None:
        known = utc(events, known_field, unit).to_physical()
        columns.append(pl.coalesce(known, time.to_physical()).alias(KNOWN))
    inside = events.filter(time.is_between(instant(earliest, unit), instant(latest, unit)))
    extra = [name for name in view.join_keys if name not in needed]
    inside = inside.select(*extra, *columns)
    if not view.join_keys:
        return inside.collect()
    if len(view.join_keys) == 1 and schema[view.join_keys[0]].is_integer() and _is_dense(distinct[view.join_keys[0]]):
        return _coded_by_table(inside, view.join_keys[0], distinct).drop(extra)
    kept = [_CODE, EVENT, *needed, *([] if known_field is None else [KNOWN])]
    alike = [as_key(view, name, schema[name], distinct.schema[name]) for name in view.join_keys]
    joined = inside.join(
        distinct.lazy(), left_on=alike, right_on=list(view.join_keys), how="inner", maintain_order="left"
    )
    return joined.select(kept).collect()


def _is_dense(keys: pl.Series) -> bool:
    """Whether a table from key to code is small beside the work."""
    if keys.is_empty() or not keys.dtype.is_integer():
        return False
    return int(keys.max()) - int(keys.min()) < _TABLE_ROWS + 4 * len(keys)  # type: ignore[arg-type]


def _coded_by_table(inside: pl.LazyFrame, key: str, distinct: pl.DataFrame) -> pl.DataFrame:
    """The events of these keys with their codes, by looking up instead of joining."""
    lowest, highest = int(distinct[key].min()), int(distinct[key].max())  # type: ignore[arg-type]
    table = np.full(highest - lowest + 1, -1, dtype=np.int32)
    table[distinct[key].cast(pl.Int64).to_numpy() - lowest] = distinct[_CODE].to_numpy()
    frame = inside.filter(pl.col(key).is_between(lowest, highest)).collect()
    code = table[frame[key].cast(pl.Int64).to_numpy() - lowest]
    frame = frame.with_columns(pl.Series(_CODE, code))
    return frame.filter(pl.col(_CODE) >= 0) if bool((code < 0).any()) else frame


def _in_order(
    frame: pl.DataFrame, wanted: tuple[Aggregation, ...], needed: list[str], has_keys: bool, has_known: bool, unit: Unit
) -> _History:
    event = frame[EVENT].to_numpy()
    known = frame[KNOWN].to_numpy() if has_known else None
    ordered = {AggregationFunction.FIRST, AggregationFunction.LAST} & {item.function for item in wanted}
    order = in_time_order(event, known if ordered else None)
    if order is not None:
        frame = frame[order]
        event = event[order]
        known = None if known is None else known[order]
    code = frame[_CODE].to_numpy() if has_keys else np.zeros(len(frame), dtype=np.int64)
    # Sums are exact however they are put together, spreads are not: their classes must not depend on who else asks.
    fixed = bool({AggregationFunction.VAR, AggregationFunction.STD} & {item.function for item in wanted})
    return _History(code=code, event=event, known=known, columns=frame.select(needed), unit=unit, fixed=fixed)


def _slices(history: _History, labels: Labels, windows: list[_Window]) -> _Slices:
    bounds = [lower_bound(labels.upto, *window) for window in windows]
    by_class = [reaches(timeline, labels, bounds) for timeline in history.classes]
    return {window: [of_class[number] for of_class in by_class] for number, window in enumerate(windows)}


def _evaluate(
    view: View,
    history: _History,
    labels: Labels,
    wanted: tuple[Aggregation, ...],
    slices: _Slices,
    size: int,
    *,
    refuse: bool,
) -> list[pl.Series]:
    found: dict[str, pl.Series] = {}
    for needs in needs_of(view, wanted):
        mine = [item for item in wanted if item.column == needs.column]
        used = list(dict.fromkeys(_window(item, history.unit) for item in mine))
        by_class = [[slices[window][number] for window in used] for number in range(len(history.classes))]
        column = Column.of(needs, history.columns)
        by_window = partials_of(column, history.classes, by_class, labels, used)
        partials = dict(zip(used, by_window, strict=True))
        for item in mine:
            its_partials = partials[_window(item, history.unit)]
            if refuse:
                _refuse_unfit(item, its_partials)
            found[item.name] = _feature(item, view.feature(item.name).dtype, its_partials, labels, size, refuse=refuse)
    return [found[item.name] for item in wanted]


def _feature(
    item: Aggregation, dtype: ValueType, partials: Partials, labels: Labels, size: int, *, refuse: bool
) -> pl.Series:
    """One feature in the rows' order."""
    values, present = finish(item.function, partials)
    fits = held(values, dtype)
    if fits is not None:
        if refuse:
            _refuse_wide(item, dtype, values[present & ~fits])
        present = present & fits
    values = declared(values, dtype)
    in_rows = np.zeros(size, dtype=values.dtype)
    in_rows[labels.order] = values
    is_null = np.full(size, item.function is not AggregationFunction.COUNT)
    is_null[labels.order] = ~present
    return _series(item.name, in_rows, is_null, dtype)


def _refuse_unfit(item: Aggregation, partials: Partials) -> None:
    if item.function in ADDED and partials.unfit is not None and bool(partials.unfit.any()):
        raise InputError(
            f"{item.name!r} adds up column {item.column!r} to more than 64 bits hold for a row.",
            hint="Declare the sum, min, max, first and last of it as DOUBLE (Float64), or scale the source.",
        )


def _refuse_wide(item: Aggregation, dtype: ValueType, wide: np.ndarray) -> None:
    if len(wide):
        raise InputError(
            f"{item.name!r} is {wide[0]} for a row, but is declared {dtype.name}.",
            hint="Declare it INT64 (Int64), and apply.",
        )


def _series(name: str, values: np.ndarray, is_null: np.ndarray, dtype: ValueType) -> pl.Series:
    series = as_series(name, values, is_null)
    polars = dtype.polars()
    return series if polars is None or series.dtype == polars else series.cast(polars)


def _event_times(history: _History, labels: Labels, slices: list[Reach], size: int) -> pl.Series:
    """The newest event that counted in a window."""
    newest = newest_ranks(history.classes, slices, labels)
    values, is_null = np.zeros(size, dtype=np.int64), np.ones(size, dtype=bool)
    some = newest >= 0
    values[labels.order[some]] = history.event[newest[some]] // _PER_MICROSECOND[history.unit]
    is_null[labels.order] = ~some
    return _series("__event_time", values, is_null, ValueType.UNIX_TIMESTAMP)


def _longest_with_hop(view: View, unit: Unit) -> tuple[int, int]:
    longest, per = longest_window(view), _PER_MICROSECOND[unit]
    hop = max(micros(item.hop) for item in view.aggregations if micros(item.window) == longest)
    return longest * per, hop * per


def _window(item: Aggregation, unit: Unit) -> tuple[int, int]:
    per = _PER_MICROSECOND[unit]
    return micros(item.window) * per, micros(item.hop) * per
