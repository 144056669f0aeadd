"""Windowed views for tests: their features are named by their functions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
from workshop import MICROS, Workshop, at

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Schedule, Source, View
from tidemill.definitions.types import ValueType

F = AggregationFunction
_WHOLE = {F.COUNT, F.COUNT_DISTINCT}


def window(name: str, function: F, *, column: str = "x", hours: float = 3, hop: float = 1 / 12) -> Aggregation:
    return Aggregation(
        name=name, function=function, column=column, window=timedelta(hours=hours), hop=timedelta(hours=hop)
    )


def windowed(
    workshop: Workshop,
    source: Source,
    *functions: F,
    keys: dict[str, ValueType] | None = None,
    schedule: Schedule | None = None,
) -> View:
    """A view `v` whose features are named by their functions, over the last three hours."""
    features = {function.value: ValueType.INT64 if function in _WHOLE else ValueType.DOUBLE for function in functions}
    parts = tuple(window(function.value, function) for function in functions)
    return workshop.view("v", source, features, keys=keys, aggregations=parts, schedule=schedule)


def asked(*rows: tuple[Any, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [row[0] for row in rows], "event_timestamp": [at(row[1]) for row in rows]},
        schema_overrides={"event_timestamp": MICROS},
    )
