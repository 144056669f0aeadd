"""A day lived through on real parts, then verified: what serving answered is what history gives again.

Departures are pushed as they become known, weather is loaded by the schedule, and every few minutes a vector is read
and logged as the prediction service does. Redis, the ledger, the log and Parquet are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from own_redis import closed_with_redis

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions import (
    Aggregation,
    AggregationFunction,
    Catalog,
    Entity,
    Feature,
    Projection,
    Schedule,
    Service,
    Source,
    Stream,
    ValueType,
    View,
)
from tidemill.definitions.windows import hop_for
from tidemill.monitor.parity import verify
from tidemill.monitor.parity_report import Outcome, ParityReport
from tidemill.predictions.log import PredictionRecord
from tidemill.project import Project, open_project
from tidemill.schedule.worker import Worker

DAY = datetime(2013, 10, 1, tzinfo=UTC)
ORIGINS = ("EWR", "JFK", "LGA")
STEP = timedelta(minutes=7)
WINDOWS = {"1h": timedelta(hours=1), "3h": timedelta(hours=3), "24h": timedelta(hours=24)}
F = AggregationFunction


def _features() -> tuple[tuple[Feature, ...], tuple[Aggregation, ...]]:
    features, aggregations = [], []
    for text, window in WINDOWS.items():
        for function, dtype in ((F.COUNT, ValueType.INT64), (F.SUM, ValueType.INT64), (F.MEAN, ValueType.DOUBLE),
                                (F.MAX, ValueType.INT64)):  # fmt: skip
            name = f"delay_{function}_{text}"
            features.append(Feature(name=name, dtype=dtype))
            aggregations.append(
                Aggregation(name=name, function=function, column="delay", window=window, hop=hop_for(window))
            )
    return tuple(features), tuple(aggregations)


def _catalog() -> Catalog:
    features, aggregations = _features()
    shared = {"entities": ("origin",), "join_keys": ("origin",)}
    weather = View(
        name="weather",
        features=(Feature(name="temp", dtype=ValueType.DOUBLE), Feature(name="wind", dtype=ValueType.INT64)),
        source="measured",
        ttl=timedelta(hours=2),
        schedule=Schedule(cron="5 * * * *", lag=timedelta(minutes=1)),
        **shared,
    )
    delays = View(
        name="delays", features=features, aggregations=aggregations, source="departed", stream="departures",
        event_id="flight", **shared,
    )  # fmt: skip
    last = View(
        name="last", features=(Feature(name="delay", dtype=ValueType.INT64),), source="departed", stream="departures",
        **shared,
    )  # fmt: skip
    views = (weather, delays, last)
    return Catalog(
        project="airports",
        entities=(Entity(name="origin", join_key="origin", dtype=ValueType.STRING),),
        sources=tuple(
            Source(name=name, path=name, timestamp_field="event_time", known_field="known_time")
            for name in ("measured", "departed")
        ),
        streams=(Stream(name="departures", kind="push", source="departed"),),
        views=views,
        services=(
            Service(
                name="all",
                projections=tuple(
                    Projection(view=view.name, features=tuple(f.name for f in view.features)) for view in views
                ),
            ),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Life:
    """A project with a day's facts in it; `live` is that day."""

    project: Project
    clock: ManualClock
    departures: pl.DataFrame

    def live(self, *, delivered_late: timedelta = timedelta(0)) -> None:
        worker = Worker(self.project)
        delivered = self.departures.with_columns(due=pl.col("known_time") + delivered_late)
        before = DAY
        for number in range(int(timedelta(days=1) / STEP)):
            now = DAY + number * STEP
            self.clock.set(now)
            arrived = delivered.filter(pl.col("due") > before, pl.col("due") <= now).drop("due")
            if arrived.height:
                self.project.push("departures", arrived, to="online", at=now)
            worker.run_due(now)
            self._serve(now, number)
            before = now

    def _serve(self, now: datetime, number: int) -> None:
        rows = [{"origin": origin} for origin in (*ORIGINS, "SFO")]
        result = self.project.online.read("all", rows, at=now)
        self.project.predictions.append(
            [
                PredictionRecord(
                    prediction_id=f"{number}-{place}",
                    model="none",
                    version=1,
                    service="all",
                    catalog_digest=self.project.catalog.digest,
                    at=to_micros(now),
                    id=None,
                    keys=json.dumps(row),
                    request="{}",
                    features=json.dumps({name: result.values[name][place] for name in result.names}),
                    statuses=json.dumps({name: result.statuses[name][place].name for name in result.names}),
                    prediction=0.5,
                )
                for place, row in enumerate(rows)
            ]
        )

    def write(self, source: str, frame: pl.DataFrame) -> None:
        folder = self.project.root / source
        folder.mkdir(exist_ok=True)
        frame.write_parquet(folder / "rows.parquet")


def _departures(chance: np.random.Generator, count: int) -> pl.DataFrame:
    events = DAY + pl.Series(chance.integers(0, 86_400, count)).cast(pl.Duration("ms")) * 1_000
    late = pl.Series(chance.integers(0, 600, count) * (chance.random(count) < 0.3)).cast(pl.Duration("ms")) * 1_000
    return pl.DataFrame(
        {
            "flight": [f"f{number}" for number in range(count)],
            "origin": chance.choice(ORIGINS, count),
            "event_time": events.cast(pl.Datetime("us", "UTC")),
            "known_time": (events + late).cast(pl.Datetime("us", "UTC")),
            "delay": pl.Series(chance.integers(-15, 200, count)).set(pl.Series(chance.random(count) < 0.05), None),
        }
    )


def _weather(chance: np.random.Generator) -> pl.DataFrame:
    """Hourly, known a moment later; JFK's station is silent from 6 to 12."""
    hours = pl.datetime_range(DAY - timedelta(hours=3), DAY + timedelta(days=1), "1h", time_zone="UTC", eager=True)
    frame = pl.DataFrame({"event_time": hours}).join(pl.DataFrame({"origin": ORIGINS}), how="cross")
    silent = (pl.col("origin") == "JFK") & pl.col("event_time").dt.hour().is_between(6, 12)
    return frame.with_columns(
        known_time=pl.col("event_time") + pl.duration(minutes=3),
        temp=pl.Series(chance.normal(60, 10, frame.height)),
        wind=pl.Series(chance.integers(0, 40, frame.height)),
    ).filter(~silent)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    (tmp_path / "feature_store.yaml").write_text("project: airports\n")
    clock = ManualClock(DAY)
    project = open_project(tmp_path, clock=clock)
    project.catalogs.add(_catalog(), at=DAY)
    chance = np.random.default_rng(11)
    life = Life(project=project, clock=clock, departures=_departures(chance, 1_500))
    life.write("measured", _weather(chance))
    life.write("departed", life.departures)
    with closed_with_redis(project):
        yield life


def differences(report: ParityReport) -> dict[str, int]:
    return {outcome.name: report.total(outcome) for outcome in Outcome if report.total(outcome)}


def test_every_value_of_the_day_is_given_again(life: Life) -> None:
    life.live()
    report = verify(life.project)
    assert report.compared == report.predictions * 15
    assert report.compared > 10_000
    assert differences(report) == {"EQUAL": report.compared}, report.examples
    assert life.project.predictions.scan()["statuses"].str.contains("OUTSIDE_MAX_AGE").sum() > 10


def test_events_that_arrive_a_minute_after_they_are_known_are_late_data(life: Life) -> None:
    life.live(delivered_late=timedelta(minutes=1))
    report = verify(life.project)
    assert report.feature("temp").counts == {Outcome.EQUAL: report.predictions}
    assert report.total(Outcome.LATE_DATA) > 100
    assert report.unexplained <= 0.001 * report.compared, report.examples


def test_a_history_that_knew_departures_hours_before_serving_could_is_caught(life: Life) -> None:
    life.live()
    leaking = life.departures.with_columns(pl.col("event_time") - pl.duration(hours=2)).with_columns(
        known_time=pl.col("event_time")
    )
    life.write("departed", leaking)
    report = verify(life.project)
    assert not report.ok
    assert report.feature("delay_count_3h").count(Outcome.UNEXPLAINED) > 100
    assert report.feature("temp").count(Outcome.UNEXPLAINED) == 0
