"""Windows in plain Python, slow and obviously right: what the engines are held against in tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Aggregation, AggregationFunction, View
from tidemill.definitions.distinct import REGISTERS, estimate, registers_of
from tidemill.definitions.windows import micros


def window_oracle(
    view: View,
    events: Sequence[Mapping[str, Any]],
    keys: Sequence[Mapping[str, Any]],
    upto: Sequence[int],
    known_upto: Sequence[int],
    *,
    per_microsecond: int = 1,
) -> list[dict[str, Any]]:
    """The view's features for every key row. Events hold `event` and `known` (or None) in the unit of `upto`.

    That is microseconds; or nanoseconds, of which there are 1,000 `per_microsecond`.
    """
    once = _each_once(view, events)
    return [
        {item.name: _value(view, item, once, key, until, learned, per_microsecond) for item in view.aggregations}
        for key, until, learned in zip(keys, upto, known_upto, strict=True)
    ]


def _known(event: Mapping[str, Any]) -> int:
    return event["event"] if event.get("known") is None else event["known"]


def _each_once(view: View, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if view.event_id is None:
        return list(events)
    kept: list[Mapping[str, Any]] = []
    seen = set()
    for event in sorted(events, key=_known):
        name = event[view.event_id]
        if name is None or name not in seen:
            kept.append(event)
            seen.add(name)
    places = {id(event): place for place, event in enumerate(events)}
    return sorted(kept, key=lambda event: places[id(event)])


def _value(
    view: View,
    item: Aggregation,
    events: Sequence[Any],
    key: Mapping[str, Any],
    upto: int,
    learned: int,
    per_microsecond: int,
) -> Any:
    window, hop = micros(item.window) * per_microsecond, micros(item.hop) * per_microsecond
    start = (upto - window) // hop * hop
    inside = [
        event
        for event in events
        if all(key[name] is not None and event[name] == key[name] for name in view.join_keys)
        and start <= event["event"] <= upto
        and _known(event) <= learned
    ]
    inside.sort(key=lambda event: (event["event"], _known(event)))
    values = [event[item.column] for event in inside if event[item.column] is not None] if item.column else inside
    return _aggregate(item.function, values)


def _aggregate(function: AggregationFunction, values: list[Any]) -> Any:
    if function is AggregationFunction.COUNT:
        return len(values)
    if not values:
        return None
    if function is AggregationFunction.COUNT_DISTINCT:
        return _sketched(values)
    if function in {AggregationFunction.VAR, AggregationFunction.STD}:
        return _spread(function, values)
    mean = math.fsum(values) / len(values)
    return {
        AggregationFunction.SUM: sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values),
        AggregationFunction.MEAN: mean,
        AggregationFunction.MIN: min(values),
        AggregationFunction.MAX: max(values),
        AggregationFunction.FIRST: values[0],
        AggregationFunction.LAST: values[-1],
    }[function]


def _spread(function: AggregationFunction, values: list[Any]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return variance if function is AggregationFunction.VAR else math.sqrt(variance)


def _sketched(values: list[Any]) -> int:
    registers = np.zeros((1, REGISTERS), dtype=np.uint8)
    for index, run in zip(*registers_of(pl.Series(values)), strict=True):
        registers[0, index] = max(registers[0, index], run)
    return int(estimate(registers)[0])
