"""Hops and bounds: the leading edge is exact, the trailing edge moves in hops."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Field, View
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import check_windowed, hop_for, lower_bound
from tidemill.errors import DefinitionError

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MINUTES = 60_000_000


@pytest.mark.parametrize(
    ("window", "slide", "hop"),
    [
        (HOUR, None, timedelta(minutes=5)),
        (12 * HOUR, None, timedelta(minutes=5)),
        (12 * HOUR + timedelta(microseconds=1), None, HOUR),
        (12 * DAY, None, HOUR),
        (13 * DAY, None, DAY),
        (HOUR, timedelta(minutes=1), timedelta(minutes=1)),
        (HOUR, HOUR, timedelta(minutes=5)),
        (HOUR, 2 * HOUR, timedelta(minutes=5)),
        (HOUR, timedelta(0), timedelta(minutes=5)),
    ],
)
def test_the_hop_of_a_window(window: timedelta, slide: timedelta | None, hop: timedelta) -> None:
    assert hop_for(window, slide) == hop


def test_a_window_that_holds_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="holds nothing"):
        hop_for(timedelta(0))


def test_the_trailing_edge_lies_on_a_hop_also_before_1970() -> None:
    assert lower_bound(61 * MINUTES, 60 * MINUTES, 5 * MINUTES) == 0
    assert lower_bound(65 * MINUTES, 60 * MINUTES, 5 * MINUTES) == 5 * MINUTES
    assert lower_bound(65 * MINUTES - 1, 60 * MINUTES, 5 * MINUTES) == 0
    assert lower_bound(0, 61 * MINUTES, 5 * MINUTES) == -65 * MINUTES
    assert lower_bound(np.array([0]), 61 * MINUTES, 5 * MINUTES).tolist() == [-65 * MINUTES]


ITEM = Aggregation(
    name="delay", function=AggregationFunction.SUM, column="delay", window=HOUR, hop=timedelta(minutes=5)
)


def view(item: Aggregation, dtype: ValueType = ValueType.DOUBLE) -> View:
    return View(
        name="delays", entities=("origin",), join_keys=("origin",), source="departures",
        features=(Field(name=item.name, dtype=dtype),), aggregations=(item,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("item", "dtype", "message"),
    [
        (replace(ITEM, window=timedelta(0)), ValueType.DOUBLE, "Both must be positive"),
        (replace(ITEM, hop=timedelta(0)), ValueType.DOUBLE, "Both must be positive"),
        (replace(ITEM, column=""), ValueType.DOUBLE, "Only count works without one"),
        (replace(ITEM, column="origin"), ValueType.DOUBLE, "aggregates the join key 'origin'"),
        (ITEM, ValueType.STRING, "is declared STRING, which cannot hold a sum"),
        (replace(ITEM, function=AggregationFunction.MEAN), ValueType.INT64, "cannot hold a mean"),
        (replace(ITEM, function=AggregationFunction.LAST), ValueType.STRING, "cannot hold a last"),
        (replace(ITEM, function=AggregationFunction.COUNT), ValueType.BOOL, "cannot hold a count"),
    ],
)
def test_an_aggregation_that_means_nothing_is_refused(item: Aggregation, dtype: ValueType, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        check_windowed(view(item, dtype))


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (AggregationFunction.SUM, ValueType.INT64),
        (AggregationFunction.MEAN, ValueType.FLOAT),
        (AggregationFunction.FIRST, ValueType.BOOL),
        (AggregationFunction.MAX, ValueType.UNIX_TIMESTAMP),
        (AggregationFunction.COUNT_DISTINCT, ValueType.INT64),
    ],
)
def test_sensible_aggregations_pass(function: AggregationFunction, dtype: ValueType) -> None:
    check_windowed(view(replace(ITEM, function=function), dtype))
