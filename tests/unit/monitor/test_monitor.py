"""`monitor`: one report on drift, freshness and performance, with findings that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions import Catalog, Freshness, Schedule
from tidemill.definitions.catalog import Trigger
from tidemill.metadata.reports import ReportRepository
from tidemill.monitor.check import monitor
from tidemill.monitor.drift import Verdict
from tidemill.monitor.findings import Severity
from tidemill.monitor.freshness import freshness

Minutes = Callable[[float], datetime]


def vectors(rows: int, *, shift: float = 0.0, seed: int = 0) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "temp": chance.normal(60 + shift, 10, rows),
            "gusts": chance.integers(0, 30, rows),
            "delay": chance.exponential(12, rows),
            "prediction": chance.random(rows),
        }
    )


def serve_all(airports: Any, at: datetime, frame: pl.DataFrame) -> None:
    for number, row in enumerate(frame.to_dicts()):
        airports.serve(at, id=str(number), prediction=row.pop("prediction"), **row)


def test_vectors_like_the_training_data_raise_nothing(airports: Any, minutes: Minutes) -> None:
    airports.promote(vectors(5_000), metrics={"roc_auc": 0.5})
    airports.ran("weather", tick=minutes(60), started=minutes(60), finished=minutes(61))
    serve_all(airports, minutes(62), vectors(300, seed=1))
    airports.add_outcomes([(str(n), n % 2, minutes(70)) for n in range(300)])
    report = monitor(airports.project, "late", at=minutes(80))
    assert report.findings == ()
    assert report.ok
    assert report.drift.verdict is Verdict.STABLE
    assert report.performance.labelled == 300


def test_a_feature_that_moved_is_the_first_in_the_drift_and_a_warning(airports: Any, minutes: Minutes) -> None:
    airports.promote(vectors(5_000), metrics={"roc_auc": 0.5})
    airports.ran("weather", tick=minutes(60), started=minutes(60), finished=minutes(61))
    serve_all(airports, minutes(62), vectors(300, shift=15, seed=1))
    airports.add_outcomes([("0", 1, minutes(70))])
    report = monitor(airports.project, "late", at=minutes(80))
    assert report.drift.features[0].name == "temp"
    assert [(f.severity, f.subject) for f in report.findings] == [(Severity.WARNING, "temp")]
    assert report.drift.prediction is not None
    assert report.drift.prediction.verdict is Verdict.STABLE


def test_a_scheduled_run_that_is_missing_is_critical(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    weather = replace(
        catalog.view("weather"),
        schedule=Schedule(cron="0 * * * *", lag=timedelta(minutes=5)),
        freshness=Freshness(max_age=timedelta(minutes=90)),
    )
    airports = make_airports(replace(catalog, views=(weather, catalog.view("delays"))))
    airports.history.add("measured", key="JFK", at=minutes(-10), temp=1.0, gusts=1)
    airports.ran("weather", tick=minutes(0), started=minutes(0), finished=minutes(1))
    on_time = {state.view: state for state in freshness(airports.project, at=minutes(64))}
    assert not on_time["weather"].is_late  # the run of 01:00 has until 01:05
    assert not on_time["weather"].is_stale
    assert on_time["weather"].age == timedelta(minutes=74)
    report = monitor(airports.project, "late", at=minutes(90))
    critical = [finding for finding in report.findings if finding.severity is Severity.CRITICAL]
    assert [finding.subject for finding in critical] == ["weather"]
    assert "01:00" in critical[0].what
    assert not report.ok
    assert any("40m old" in f.what for f in report.findings if f.subject == "weather")


def test_a_pushed_view_is_as_fresh_as_its_newest_event(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=1.0)
    airports.history.add("delayed", key="JFK", at=minutes(15), delay=1.0)
    state = next(state for state in freshness(airports.project, at=minutes(10)) if state.view == "delays")
    assert (state.kind, state.newest_event, state.is_late) == ("pushed", minutes(5), False)


def test_a_drop_beyond_the_models_own_trigger_is_critical(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    trigger = Trigger(kind="performance", settings=(("metric", "roc_auc"), ("drop", 0.03)))
    airports = make_airports(replace(catalog, models=(replace(catalog.model("late"), retrain=(trigger,)),)))
    airports.promote(vectors(2_000), metrics={"roc_auc": 0.9})
    airports.ran("weather", tick=minutes(60), started=minutes(60), finished=minutes(61))
    serve_all(airports, minutes(62), vectors(300, seed=1))
    airports.add_outcomes([(str(n), n % 2, minutes(70)) for n in range(300)])
    report = monitor(airports.project, "late", at=minutes(80))
    assert [finding.subject for finding in report.findings if finding.severity is Severity.CRITICAL] == ["version 1"]
    assert "0.900 in training" in report.findings[0].what


def test_a_model_without_champion_says_what_to_do(airports: Any, minutes: Minutes) -> None:
    airports.ran("weather", tick=minutes(60), started=minutes(60), finished=minutes(61))
    report = monitor(airports.project, "late", at=minutes(80))
    assert [finding.what for finding in report.findings] == ["There is no champion to compare with."]


def test_the_report_is_kept_as_it_was(airports: Any, minutes: Minutes) -> None:
    airports.promote(vectors(100), metrics={"roc_auc": 0.5})
    serve_all(airports, minutes(10), vectors(60))
    report = monitor(airports.project, "late", at=minutes(80), window=timedelta(hours=2))
    kept = ReportRepository(airports.project.database, "airports").newest("monitor", "late")
    assert kept is not None
    assert kept.made_at == minutes(80)
    assert kept.body["drift"] == report.drift.to_dict()
    assert kept.body["findings"] == [finding.to_dict() for finding in report.findings]
    assert kept.body["performance"]["versions"][0]["metrics"]["roc_auc"] is None
