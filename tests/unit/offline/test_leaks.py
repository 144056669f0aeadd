"""Planted leaks of each kind are found and named; honest features are left in peace."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from workshop import Workshop, at

from tidemill.definitions.catalog import Schedule
from tidemill.definitions.types import ValueType
from tidemill.offline.leaks import Leak, find_leaks, predictive_power

NOW = at(24 * 365)
KEYS = 40
HOURS = 200


def hourly(rng: np.random.Generator, **columns: object) -> pl.DataFrame:
    """A row for each key and hour, known as it happens unless said otherwise."""
    hour = np.repeat(np.arange(HOURS), KEYS)
    rows = {"id": np.tile(np.arange(KEYS), HOURS), "event": [at(int(number)) for number in hour]}
    return pl.DataFrame({**rows, "x": rng.random(len(hour)), **columns})


def asked(rng: np.random.Generator, rows: int = 2000) -> pl.DataFrame:
    times = [at(float(number)) for number in rng.uniform(10, HOURS, rows)]
    label = rng.integers(0, 2, rows)
    return pl.DataFrame({"id": rng.integers(0, KEYS, rows), "event_timestamp": times, "late": label})


def looked_for(workshop: Workshop, spine: pl.DataFrame, features: tuple[str, ...] = ("v:x",)) -> list[Leak]:
    return find_leaks(workshop.store, features, spine, at=NOW, label="late")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_honest_features_are_left_in_peace(workshop: Workshop, rng: np.random.Generator):
    frame = hourly(rng)
    source = workshop.source("s", frame.with_columns(known=pl.col("event") + timedelta(minutes=7), note=pl.lit("n")))
    schedule = Schedule(cron="5 * * * *", lag=timedelta(minutes=1))
    workshop.view("v", source, {"x": ValueType.DOUBLE, "note": ValueType.STRING}, schedule=schedule)
    assert looked_for(workshop, asked(rng), ("v:x", "v:note")) == []


def test_a_time_of_recording_after_the_request_that_nobody_declared(workshop: Workshop, rng: np.random.Generator):
    """Delays by scheduled departure, though they are known when the flight has arrived."""
    frame = hourly(rng).with_columns(arrived_at=pl.col("event") + timedelta(hours=5))
    workshop.view("v", workshop.source("s", frame), {"x": ValueType.DOUBLE})
    (leak,) = looked_for(workshop, asked(rng))
    assert (leak.feature, leak.view, leak.kind) == ("x", "v", "known_after_request")
    assert "arrived_at" in leak.evidence


def test_the_same_source_is_honest_once_it_declares_the_known_time(workshop: Workshop, rng: np.random.Generator):
    frame = hourly(rng).with_columns(arrived_at=pl.col("event") + timedelta(hours=5))
    workshop.view("v", workshop.source("s", frame, known_field="arrived_at"), {"x": ValueType.DOUBLE})
    assert looked_for(workshop, asked(rng)) == []


def test_events_later_than_their_file_was_written(workshop: Workshop, rng: np.random.Generator):
    """A forecast that is stamped with the hour it is about."""
    workshop.view("v", workshop.source("s", hourly(rng)), {"x": ValueType.DOUBLE})
    written = at(50).timestamp()
    os.utime(workshop.root / "s.parquet", (written, written))
    (leak,) = looked_for(workshop, asked(rng))
    assert (leak.feature, leak.kind) == ("x", "event_ahead_of_knowledge")
    assert leak.size == pytest.approx(149 / 200, abs=0.01)


def test_values_that_a_run_could_only_just_have_seen(workshop: Workshop, rng: np.random.Generator):
    """Stamped at the tick itself by whatever runs at the tick, with nothing said about when it was there."""
    schedule = Schedule(cron="0 * * * *", lag=timedelta(minutes=10))
    workshop.view("v", workshop.source("s", hourly(rng)), {"x": ValueType.DOUBLE}, schedule=schedule)
    (leak,) = looked_for(workshop, asked(rng))
    assert (leak.feature, leak.kind) == ("x", "fresher_than_its_schedule")
    assert "600 s" in leak.evidence


def test_a_feature_that_alone_tells_the_outcome(workshop: Workshop, rng: np.random.Generator):
    """The outcome itself, written down an hour before it was decided."""
    spine = asked(rng)
    before = pl.col("event_timestamp") - timedelta(seconds=1)
    late = pl.col("late") == 1
    planted = spine.select(
        "id",
        event=before,
        known=before,
        delay=pl.col("late") * 30.0 + rng.random(spine.height) * 10,
        reason=pl.when(late).then(pl.lit("late")),
    )
    source = workshop.source("s", planted.sort("event"))
    workshop.view("v", source, {"delay": ValueType.DOUBLE, "reason": ValueType.STRING})
    found = looked_for(workshop, spine, ("v:delay", "v:reason"))
    assert {(leak.feature, leak.kind) for leak in found} == {("delay", "too_predictive"), ("reason", "too_predictive")}


def test_a_windowed_view_over_a_source_that_hides_when_it_was_known(workshop: Workshop, rng: np.random.Generator):
    from dataclasses import replace

    from tidemill.definitions.catalog import Aggregation, AggregationFunction, Feature

    frame = hourly(rng).with_columns(finished_at=pl.col("event") + timedelta(hours=9))
    plain = workshop.view("v", workshop.source("s", frame), {"x": ValueType.DOUBLE})
    mean = Aggregation(
        name="x_mean_3h",
        function=AggregationFunction.MEAN,
        column="x",
        window=timedelta(hours=3),
        hop=timedelta(minutes=5),
    )
    workshop.views[:] = [
        replace(plain, features=(Feature(name="x_mean_3h", dtype=ValueType.DOUBLE),), aggregations=(mean,))
    ]
    (leak,) = looked_for(workshop, asked(rng), ("v:x_mean_3h",))
    assert (leak.feature, leak.kind) == ("x_mean_3h", "known_after_request")


def test_the_power_of_one_feature(rng: np.random.Generator):
    outcome = pl.Series(rng.integers(0, 2, 4000).astype(float))
    noise = pl.Series(rng.random(4000))
    assert predictive_power(noise, outcome) < 0.55
    assert predictive_power(-outcome + noise * 0.1, outcome) == 1.0
    names = pl.Series([f"name {number}" for number in range(4000)])
    assert predictive_power(names, outcome) < 0.55
    told = pl.select(pl.when(pl.lit(outcome) > 0).then(pl.lit(1.0))).to_series()
    assert predictive_power(told, outcome) == 1.0


@pytest.mark.parametrize("layout", ["delta", "hive", "nanoseconds", "text"])
def test_sources_of_every_layout_are_looked_through(workshop: Workshop, rng: np.random.Generator, layout: str):
    frame, options = hourly(rng), {"path": "s"}
    if layout == "nanoseconds":
        frame = frame.with_columns(pl.col("event").dt.cast_time_unit("ns"))
    if layout == "text":
        frame = frame.with_columns(pl.col("event").dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
    if layout == "delta":
        from deltalake import write_deltalake

        write_deltalake(str(workshop.root / "s"), frame.with_columns(part=pl.col("id") % 2), partition_by=["part"])
        options["file_format"] = "delta"
    else:
        (workshop.root / "s" / "part=1").mkdir(parents=True)
        frame.write_parquet(workshop.root / "s" / "part=1" / "a.parquet")
    workshop.view("v", workshop.source("s", **options), {"x": ValueType.DOUBLE})

    assert looked_for(workshop, asked(rng)) == []
    early = find_leaks(workshop.store, ("v:x",), asked(rng), at=at(HOURS / 2))
    assert {leak.kind for leak in early} == {"event_ahead_of_knowledge"}


def test_a_day_of_recording_after_the_request_that_nobody_declared(workshop: Workshop, rng: np.random.Generator):
    frame = hourly(rng).with_columns(arrived_on=(pl.col("event") + timedelta(days=2)).dt.date())
    workshop.view("v", workshop.source("s", frame), {"x": ValueType.DOUBLE})
    (leak,) = looked_for(workshop, asked(rng))
    assert (leak.kind, "arrived_on" in leak.evidence) == ("known_after_request", True)
