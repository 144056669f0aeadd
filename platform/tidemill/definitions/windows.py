"""What a window is: hops, bounds, and which partial aggregates a windowed view needs.

For window `w` with hop `h` the events that count at `t` are those with `floor((t - w) / h) * h <= event <= t`: the
leading edge is exact, the trailing edge moves in hops. Offline and online work from the functions of this module, so
that they cannot disagree. All instants and durations in numbers are int64 microseconds (instants since 1970-01-01 UTC).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import overload

import numpy as np

from tidemill.definitions.catalog import Aggregation, AggregationFunction, View
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError

_HOPS = ((timedelta(hours=12), timedelta(minutes=5)), (timedelta(days=12), timedelta(hours=1)))
_LONGEST_HOP = timedelta(days=1)
_SHORTEST_HOP = timedelta(milliseconds=1)
_WHOLE = {ValueType.INT32, ValueType.INT64, ValueType.BOOL, ValueType.UNIX_TIMESTAMP}
_COUNTS = {AggregationFunction.COUNT, AggregationFunction.COUNT_DISTINCT}
_TAKES_VALUE = {AggregationFunction.MIN, AggregationFunction.MAX, AggregationFunction.FIRST, AggregationFunction.LAST}
FAR_PAST, FAR_FUTURE = -(2**62 + 2**61), 2**62 + 2**61
"""Instants are clipped to these, so that a window's width can be added or taken away without overflow: in nanoseconds
they are the years 1750 and 2189."""


def refuse_values(view: View) -> None:
    """Raises InputError for a windowed view: what it holds is made of events, and values written to it are lost."""
    if view.is_windowed:
        raise InputError(
            f"View {view.name!r} is made of windows over events; its values cannot be written.",
            hint=f"Push the events instead: project.push({view.stream or view.source!r}, rows).",
        )


def hop_for(window: timedelta, slide_interval: timedelta | None = None) -> timedelta:
    """How far the trailing edge of `window` moves at once.

    That is `slide_interval` where it is shorter than the window; else 5 minutes for windows up to 12 hours, 1 hour up
    to 12 days, 1 day beyond. Raises DefinitionError for a window that is not positive.
    """
    if window <= timedelta(0):
        raise DefinitionError(f"A window of {window} holds nothing.", hint="Give a positive duration such as 1h or 7d.")
    if slide_interval is not None and timedelta(0) < slide_interval < window:
        return slide_interval
    return next((hop for longest, hop in _HOPS if window <= longest), _LONGEST_HOP)


def micros(duration: timedelta) -> int:
    """A duration in whole microseconds, exact."""
    return duration // timedelta(microseconds=1)


@overload
def lower_bound(at: int, window: int, hop: int) -> int: ...
@overload
def lower_bound(at: np.ndarray, window: int, hop: int) -> np.ndarray: ...
def lower_bound(at: int | np.ndarray, window: int, hop: int) -> int | np.ndarray:
    """The first instant that counts at `at`: `floor((at - window) / hop) * hop`, inclusive."""
    return (at - window) // hop * hop


@dataclass(frozen=True, kw_only=True)
class ColumnNeeds:
    """What has to be known about one aggregated column of a windowed view.

    `column` is empty where rows are counted. With `whole` the column is aggregated in int64 (some feature of it is
    declared as an integer, a boolean or a timestamp), otherwise in float64; the declaration decides and not the data,
    so that a reader of tiles, who sees no source, decides alike.
    """

    column: str
    whole: bool
    total: bool
    lowest: bool
    highest: bool
    spread: bool
    first: bool
    last: bool
    distinct: bool

    @property
    def has_values(self) -> bool:
        """Whether the values matter, and not only that they are there."""
        return self.total or self.lowest or self.highest or self.spread or self.first or self.last


def needs_of(view: View, aggregations: tuple[Aggregation, ...] | None = None) -> tuple[ColumnNeeds, ...]:
    """The columns that `aggregations` (all of the view's, unless given) read, ordered by name."""
    wanted = view.aggregations if aggregations is None else aggregations
    return tuple(_needs_of_column(view, column, wanted) for column in sorted({item.column for item in wanted}))


def _needs_of_column(view: View, column: str, aggregations: tuple[Aggregation, ...]) -> ColumnNeeds:
    functions = {item.function for item in aggregations if item.column == column}
    function = AggregationFunction
    return ColumnNeeds(
        column=column,
        whole=is_whole(view, column),
        total=bool(functions & {function.SUM, function.MEAN, function.VAR, function.STD}),
        lowest=function.MIN in functions,
        highest=function.MAX in functions,
        spread=bool(functions & {function.VAR, function.STD}),
        first=function.FIRST in functions,
        last=function.LAST in functions,
        distinct=function.COUNT_DISTINCT in functions,
    )


def is_whole(view: View, column: str) -> bool:
    """Whether `column` is aggregated in int64: some sum, min, max, first or last of it is declared whole."""
    keeps_type = _TAKES_VALUE | {AggregationFunction.SUM}
    return any(
        view.feature(item.name).dtype in _WHOLE
        for item in view.aggregations
        if item.column == column and item.function in keeps_type
    )


def longest_window(view: View) -> int:
    """The longest window of a view, in microseconds."""
    return max(micros(item.window) for item in view.aggregations)


def of_nothing(function: AggregationFunction, dtype: ValueType) -> float | None:
    """The declared value of a window without events."""
    if function is not AggregationFunction.COUNT:
        return None
    return 0.0 if dtype in {ValueType.DOUBLE, ValueType.FLOAT} else 0


def check_windowed(view: View) -> None:
    """Raise DefinitionError for an aggregation that cannot mean anything, naming it and what to change."""
    for item in view.aggregations:
        _check_aggregation(view, item)


def _check_aggregation(view: View, item: Aggregation) -> None:
    name = f"Aggregation {item.name!r} of view {view.name!r}"
    declared = view.feature(item.name).dtype
    if item.window <= timedelta(0) or item.hop <= timedelta(0):
        raise DefinitionError(f"{name} has window {item.window} and hop {item.hop}.", hint="Both must be positive.")
    if item.hop < _SHORTEST_HOP:
        raise DefinitionError(f"{name} has a hop of {item.hop}.", hint="A millisecond is the shortest.")
    if not item.column and item.function is not AggregationFunction.COUNT:
        raise DefinitionError(
            f"{name} names no column.", hint=f"Only count works without one; give {item.function} one."
        )
    if item.column and item.column in view.join_keys and item.function not in _COUNTS:
        raise DefinitionError(f"{name} aggregates the join key {item.column!r}.", hint="Aggregate a value column.")
    if not _may_hold(item.function, declared):
        raise DefinitionError(
            f"{name} is declared {declared.name}, which cannot hold a {item.function.value}.",
            hint="Declare INT64 for counts and whole numbers, DOUBLE (Float64) for anything else.",
        )


def _may_hold(function: AggregationFunction, declared: ValueType) -> bool:
    if function in _TAKES_VALUE:
        return declared.is_numeric or declared in _WHOLE
    if function in {AggregationFunction.MEAN, AggregationFunction.VAR, AggregationFunction.STD}:
        return declared in {ValueType.DOUBLE, ValueType.FLOAT}
    return declared.is_numeric
