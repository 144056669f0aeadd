"""Models are fitted again after what they read, and the loop goes on whatever happens."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest
from waiting import PATIENCE, wait_until
from worker_parts import EXTRACT, HOURLY, Airports, at, catalog_with, model_with

from tidemill.clock import to_micros
from tidemill.definitions import Schedule
from tidemill.definitions.catalog import Trigger
from tidemill.predictions import PredictionRecord
from tidemill.schedule.tasks import tasks_of
from tidemill.schedule.worker import TaskReport, Worker


def test_models_are_retrained_last_at_their_schedule_and_looked_at_daily(airports: Airports) -> None:
    weekly = Trigger(kind="schedule", settings=(("cron", "0 6 * * 1"), ("timezone", "UTC")))
    drift = Trigger(kind="drift", settings=(("psi", 0.2),))
    airports.apply(replace(catalog_with(HOURLY), models=(model_with(weekly, drift),)))
    asked: list[tuple[str, datetime]] = []
    worker = Worker(airports.project, retrain=lambda _project, model, now: asked.append((model, now)))
    assert [task.name for task in worker.tasks] == ["weather", "retrain:late", "retrain:late:check"]
    for hour in range(24 * 14):
        worker.run_due(at(0) + timedelta(hours=hour))
    scheduled = airports.project.ledger.runs("retrain:late", limit=100)
    checks = airports.project.ledger.runs("retrain:late:check", limit=100)
    assert [run.end.strftime("%m-%d %H") for run in reversed(scheduled)] == ["09-30 06", "10-07 06", "10-14 06"]
    assert len(checks) == 14
    assert len(asked) == 17


def test_a_model_waits_for_the_views_it_reads_and_the_sources_it_learns_from(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    weekly = Trigger(kind="schedule", settings=(("cron", "5 * * * *"), ("timezone", "UTC")))
    catalog = catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *"))
    airports.apply(replace(catalog, models=(model_with(weekly),)))
    asked: list[datetime] = []
    worker = Worker(airports.project, retrain=lambda _project, _model, now: asked.append(now))
    assert worker.tasks[-1].after == ("extract:measured", "weather")
    airports.loads.failing = True
    assert [(report.view, report.state) for report in worker.run_due(at(3, 10))] == [
        ("extract:measured", "succeeded"), ("weather", "failed"),
    ]  # fmt: skip
    airports.loads.failing = False
    reports = worker.run_due(at(3, 11))
    assert [(report.view, report.state) for report in reports] == [
        ("weather", "succeeded"),
        ("retrain:late", "succeeded"),
    ]
    assert asked == [at(3, 11)]


def test_without_a_way_to_retrain_models_are_left_alone() -> None:
    catalog = replace(catalog_with(HOURLY), models=(model_with(Trigger(kind="drift", settings=(("psi", 0.2),))),))
    assert [task.name for task in tasks_of(catalog, extracted=(), retrain=False)] == ["weather"]


def test_the_loop_takes_up_new_definitions_and_stops_when_told(airports: Airports) -> None:
    stop, seen = threading.Event(), threading.Event()
    airports.clock.set(at(3, 5))
    worker = Worker(airports.project)

    def note(report: TaskReport) -> None:
        seen.set()

    thread = threading.Thread(target=worker.run, args=(stop,), kwargs={"on_report": note})
    thread.start()
    assert seen.wait(PATIENCE)
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [view for view, _, _ in airports.loads.loads] == ["weather"]


def test_once_told_to_stop_the_loop_begins_nothing_more(airports: Airports) -> None:
    (weather,) = catalog_with(HOURLY).views
    airports.apply(replace(catalog_with(HOURLY), views=(weather, replace(weather, name="wind"))))
    airports.clock.set(at(3, 5))
    stop = threading.Event()
    Worker(airports.project).run(stop, on_report=lambda _report: stop.set())
    assert [view for view, _, _ in airports.loads.loads] == ["weather"]


def test_the_loop_outlives_a_file_of_the_user_s_that_cannot_be_imported(
    airports: Airports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidemill.schedule.worker._LONGEST_SLEEP", 0.01)
    (airports.project.root / "extract.py").write_text("import what_nobody_installed\n")
    airports.clock.set(at(3, 5))
    stop, seen = threading.Event(), threading.Event()
    loop = partial(Worker(airports.project).run, stop, on_report=lambda _report: seen.set())
    thread = threading.Thread(target=loop)
    thread.start()
    wait_until(lambda: "extract.py cannot be imported: ModuleNotFoundError" in caplog.text)
    (airports.project.root / "extract.py").write_text(EXTRACT)
    assert seen.wait(PATIENCE)
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_loop_compacts_the_log_of_predictions_that_are_a_day_old(airports: Airports) -> None:
    log = airports.project.predictions
    for number, answered in enumerate((at(20) - timedelta(days=1), at(0))):
        made = PredictionRecord(
            prediction_id=f"p-{number}",
            model="delays",
            version=1,
            service="weather_v1",
            catalog_digest="abc",
            at=to_micros(answered),
            id=None,
            keys="{}",
            request="{}",
            features="{}",
            statuses="{}",
            prediction=0.5,
        )
        log.append([made])
    log.close()
    before = log.scan()
    airports.clock.set(at(23))
    stop = threading.Event()
    Worker(airports.project).run(stop, on_report=lambda _report: stop.set())
    assert sorted(file.suffix for file in log.folder.iterdir()) == [".jsonl", ".parquet"]
    assert log.scan().equals(before)
