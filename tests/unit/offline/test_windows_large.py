"""What only happens with many events, held against the oracle: counting sorts, tables of keys, classes of lateness."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Field, View
from tidemill.definitions.types import ValueType
from tidemill.offline.windows import latest_windows, window_values
from tidemill.testing.window_oracle import window_oracle

HOUR = 3_600_000_000
START = 1_380_585_600_000_000
EVENTS, ENTITIES, LABELS = 150_000, 3_000, 40
F = AggregationFunction


def view() -> View:
    wanted = [
        (f"value_{function}_{hours}h", function, hours)
        for hours in (1, 72)
        for function in F
        if function is not F.COUNT_DISTINCT
    ]
    return View(
        name="readings",
        entities=("key",),
        join_keys=("key",),
        features=tuple(
            Field(name=name, dtype=ValueType.INT64 if function is F.COUNT else ValueType.DOUBLE)
            for name, function, _ in wanted
        ),
        source="readings",
        stream="pushed",
        aggregations=tuple(
            Aggregation(
                name=name, function=function, column="value", window=timedelta(hours=hours), hop=timedelta(minutes=5)
            )
            for name, function, hours in wanted
        ),
    )


def key_column(kind: str, numbers: np.ndarray) -> pl.Series:
    if kind == "text":
        return pl.Series("key", numbers).cast(pl.String)
    return pl.Series("key", numbers * (10**12 if kind == "far apart" else 1) - 700)


def lateness(kind: str, random: np.random.Generator) -> np.ndarray:
    """Microseconds from event to known time; mixed goes from a minute to a month."""
    if kind == "punctual":
        return np.zeros(EVENTS, dtype=np.int64)
    if kind == "always late":
        return random.integers(1, 2 * HOUR, EVENTS)
    return (10 ** random.uniform(7, 12.4, EVENTS)).astype(np.int64) * random.integers(0, 2, EVENTS)


@pytest.mark.parametrize("keys", ["dense", "far apart", "text"])
@pytest.mark.parametrize("late", ["punctual", "always late", "mixed"])
@pytest.mark.parametrize("values", ["any float", "whole floats", "wide range", "with infinity"])
def test_many_events_equal_the_oracle(keys: str, late: str, values: str) -> None:
    random = np.random.default_rng(len(keys) + len(late) + len(values))
    number = (ENTITIES * random.random(EVENTS) ** 2).astype(np.int64)
    event = START + random.integers(0, 30 * 24 * HOUR, EVENTS)
    known = event + lateness(late, random)
    instant = pl.Datetime("us", "UTC")
    frame = pl.DataFrame(
        {
            "key": key_column(keys, number),
            "event": pl.Series(event).cast(instant),
            "known": pl.Series(known).cast(instant),
            "value": numbers_of(values, random),
        }
    )
    asked = random.integers(0, EVENTS, LABELS)
    at = event[asked] + random.integers(-HOUR, 40 * HOUR, LABELS)
    keyed = frame.select("key")[asked]
    # Asking for all keys at once takes the paths for many rows; the oracle looks at some of them.
    everyone = pl.concat([keyed, frame.select("key").unique(maintain_order=True)])
    until = np.concatenate([at, np.full(len(everyone) - LABELS, START + 20 * 24 * HOUR)])
    found = window_values(view(), frame.lazy(), everyone, until, until, timestamp_field="event", known_field="known")[
        :LABELS
    ]
    assert_equal(found, expected(frame, event, known, number, asked, keyed, at))


def numbers_of(values: str, random: np.random.Generator) -> np.ndarray:
    found = random.normal(10, 40, EVENTS)
    if values == "whole floats":
        return np.rint(found)
    if values == "wide range":
        return found * 10.0 ** random.integers(-14, 15, EVENTS)
    if values == "with infinity":
        found[random.integers(0, EVENTS, 40)] = np.inf
    return found


def expected(
    frame: pl.DataFrame,
    event: np.ndarray,
    known: np.ndarray,
    number: np.ndarray,
    asked: np.ndarray,
    keyed: pl.DataFrame,
    at: np.ndarray,
) -> list[dict[str, Any]]:
    plain = frame.with_columns(event=pl.Series(event), known=pl.Series(known))
    return [
        window_oracle(
            view(),
            plain.filter(pl.Series(number == number[row])).to_dicts(),
            [{"key": key}],
            [int(until)],
            [int(until)],
        )[0]
        for row, key, until in zip(asked.tolist(), keyed["key"].to_list(), at.tolist(), strict=True)
    ]


def assert_equal(found: pl.DataFrame, wanted: list[dict[str, Any]]) -> None:
    for got, want in zip(found.rows(named=True), wanted, strict=True):
        for name, value in want.items():
            if isinstance(value, float) and not math.isfinite(value):
                assert not math.isfinite(got[name]), name
            elif isinstance(value, float):
                assert math.isclose(got[name], value, rel_tol=1e-9, abs_tol=1e-9), (name, got[name], value)
            else:
                assert got[name] == value, name


def test_the_values_of_a_scheduled_view_are_those_at_its_cutoff_for_every_key_that_had_some() -> None:
    """A key whose window has emptied since the last run is written once more, with nothing in it."""
    day = 24 * HOUR
    frame = pl.LazyFrame(
        {
            "key": ["old", "fresh", "fresh"],
            "event": [START, START + 5 * day, START + 5 * day + HOUR],
            "value": [1.0, 2.0, 3.0],
        },
    ).with_columns(pl.col("event").cast(pl.Datetime("us", "UTC")))
    end = pl.Series([START + 5 * day + HOUR]).cast(pl.Datetime("us", "UTC"))[0]
    start = pl.Series([START + day]).cast(pl.Datetime("us", "UTC"))[0]
    found = latest_windows(view(), frame, start=start, end=end, timestamp_field="event")
    assert found.select("key", "value_count_72h", "value_last_1h").rows() == [("fresh", 2, 3.0), ("old", 0, None)]
    assert set(found["__event_time"]) == {end}
