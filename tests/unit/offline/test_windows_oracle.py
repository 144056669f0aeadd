"""Windowed aggregations equal the plain-Python oracle, whatever the events look like and however late they came."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Field, View
from tidemill.definitions.types import ValueType
from tidemill.offline import window_columns
from tidemill.offline.windows import window_values
from tidemill.testing.window_oracle import window_oracle

HOUR = 3_600_000_000
START = 1_380_585_600_000_000
F = AggregationFunction
DTYPES = {F.COUNT: ValueType.INT64, F.COUNT_DISTINCT: ValueType.INT64}
WINDOWS = ((timedelta(hours=1), timedelta(minutes=5)), (timedelta(hours=7), timedelta(hours=2)))


def view_of(
    column_dtypes: dict[str, ValueType], *, event_id: str | None = None, keys: tuple[str, ...] = ("key",)
) -> View:
    """All functions of each column over two windows, and a count of rows."""
    aggregations, features = [], []
    for window, hop in WINDOWS:
        for column, dtype in {**column_dtypes, "": ValueType.INT64}.items():
            for function in F if column else [F.COUNT]:
                name = f"{function}_{column}_{window}"
                kept = dtype if function in {F.SUM, F.MIN, F.MAX, F.FIRST, F.LAST} else ValueType.DOUBLE
                features.append(Field(name=name, dtype=DTYPES.get(function, kept)))
                aggregations.append(Aggregation(name=name, function=function, column=column, window=window, hop=hop))
    return View(
        name="delays", entities=keys, join_keys=keys, features=tuple(features), source="events", stream="pushed",
        aggregations=tuple(aggregations), event_id=event_id,
    )  # fmt: skip


def frame_of(events: list[dict]) -> pl.LazyFrame:
    schema = {
        "key": pl.String, "event": pl.Datetime("us", "UTC"), "known": pl.Datetime("us", "UTC"),
        "whole": pl.Int64, "real": pl.Float64, "id": pl.String,
    }  # fmt: skip
    return pl.LazyFrame(events, schema=schema)


def assert_equal(found: pl.DataFrame, expected: list[dict]) -> None:
    for row, (got, want) in enumerate(zip(found.rows(named=True), expected, strict=True)):
        for name, value in want.items():
            if isinstance(value, float):
                assert got[name] is not None, (row, name)
                assert math.isclose(got[name], value, rel_tol=1e-9, abs_tol=1e-9), (row, name, got[name], value)
            else:
                assert got[name] == value, (row, name, got[name], value)


# Instants lie on a coarse grid, so that ties and window edges are hit all the time.
instants = st.integers(0, 120).map(lambda step: START + step * HOUR // 12)
lateness = st.one_of(
    st.just(0), st.integers(-3, 3).map(lambda step: step * HOUR // 12), st.integers(0, 40).map(lambda step: step * HOUR)
)
values = st.one_of(st.none(), st.integers(-50, 50))
reals = st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda value: round(value, 3)))


@st.composite
def event_lists(draw: st.DrawFn) -> list[dict]:
    size = draw(st.integers(0, 40))
    events = []
    for _ in range(size):
        event = draw(instants)
        late = draw(st.one_of(st.none(), lateness))
        events.append({
            "key": draw(st.sampled_from(["a", "b", None])),
            "event": event,
            "known": None if late is None else event + late,
            "whole": draw(values),
            "real": draw(reals),
            "id": draw(st.one_of(st.none(), st.integers(0, 30).map(str))),
        })  # fmt: skip
    return events


def once_by_id(events: list[dict]) -> list[dict]:
    """A repeated delivery is the same event, learned again at some other time."""
    first: dict[str, dict] = {}
    for event in events:
        if event["id"] is not None:
            known = event["known"]
            event |= first.setdefault(event["id"], event) | {"known": known}
    return events


labels = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), instants, st.sampled_from([-HOUR, 0, 0, 0, HOUR])), max_size=15
)


@settings(max_examples=150)
@given(event_lists(), labels, st.booleans(), st.sampled_from([2, window_columns._EVENTS_AT_ONCE]))
def test_every_function_equals_the_oracle_for_late_unordered_and_repeated_events(
    events: list[dict], asked: list[tuple], with_id: bool, at_once: int
) -> None:
    view = view_of({"whole": ValueType.INT64, "real": ValueType.DOUBLE}, event_id="id" if with_id else None)
    events = once_by_id(events) if with_id else events
    keys = [{"key": key} for key, _, _ in asked]
    upto = [at for _, at, _ in asked]
    known = [at + shift for _, at, shift in asked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_columns, "_EVENTS_AT_ONCE", at_once)
        found = window_values(
            view, frame_of(events), pl.DataFrame(keys, schema={"key": pl.String}),
            np.array(upto, dtype=np.int64), np.array(known, dtype=np.int64),
            timestamp_field="event", known_field="known",
        )  # fmt: skip
    assert found.columns == [feature.name for feature in view.features]
    assert_equal(found, window_oracle(view, events, keys, upto, known))
