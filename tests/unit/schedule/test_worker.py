"""The worker does what is due: in order, and once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from worker_parts import EXTRACT, HOURLY, Airports, at, catalog_with

from tidemill.definitions import (
    CatchUp,
    Schedule,
)
from tidemill.extract import extract
from tidemill.extract.landing import alone
from tidemill.schedule.tasks import Kind
from tidemill.schedule.worker import Worker


def test_a_view_is_materialized_at_each_tick_and_not_between(airports: Airports) -> None:
    worker = Worker(airports.project)
    for minute in range(0, 180, 5):
        worker.run_due(at(0) + timedelta(minutes=minute))
    assert [until for _, _, until in airports.loads.loads] == [
        at(0) - timedelta(minutes=55), at(0, 5), at(1, 5), at(2, 5),
    ]  # fmt: skip
    assert worker.run_due(at(2, 30)) == []


def test_the_report_says_what_was_done(airports: Airports) -> None:
    (report,) = Worker(airports.project).run_due(at(3, 5))
    assert (report.kind, report.view, report.end, report.cutoff) == (Kind.MATERIALIZE, "weather", at(3, 5), at(3, 5))
    assert (report.rows_read, report.rows_written, report.state) == (2, 1, "succeeded")


def test_a_second_worker_finds_the_work_done(airports: Airports) -> None:
    first, second = Worker(airports.project), Worker(airports.project)
    for hour in range(1, 5):
        assert len(first.run_due(at(hour, 5))) == 1
        assert second.run_due(at(hour, 5)) == []


def test_after_downtime_every_tick_is_run_where_that_is_declared(airports: Airports) -> None:
    airports.apply(catalog_with(replace(HOURLY, catch_up=CatchUp.ALL)))
    worker = Worker(airports.project)
    worker.run_due(at(1, 5))
    assert [report.end for report in worker.run_due(at(4, 30))] == [at(2, 5), at(3, 5), at(4, 5)]


def test_extraction_comes_first_and_lands_what_became_known_since_the_last_tick(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    worker = Worker(airports.project)
    reports = worker.run_due(at(3, 10)) + worker.run_due(at(5, 10))
    assert [(report.kind, report.view) for report in reports] == [
        (Kind.EXTRACT, "extract:measured"), (Kind.MATERIALIZE, "weather"),
        (Kind.EXTRACT, "extract:measured"), (Kind.MATERIALIZE, "weather"),
    ]  # fmt: skip
    landed = pl.scan_parquet(airports.project.root / "data/measured").collect()
    assert landed["known_time"].sort().to_list() == [at(2, 1), at(3, 1), at(4, 1)]
    assert [(run.start, run.end) for run in airports.project.ledger.runs("extract:measured")] == [
        (at(3, 1), at(5, 1)), (at(2, 1), at(3, 1)),
    ]  # fmt: skip


def test_a_view_waits_for_an_extraction_that_failed(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    worker = Worker(airports.project)
    (report,) = worker.run_due(at(3, 10))
    assert (report.view, report.state) == ("extract:measured", "failed")
    assert "division by zero" in str(report.error)
    assert airports.loads.loads == []
    (airports.project.root / "extract.py").write_text(EXTRACT)
    assert [report.state for report in worker.run_due(at(3, 11))] == ["succeeded", "succeeded"]


def test_a_view_waits_for_an_extraction_that_its_jitter_holds_back(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    late = Schedule(cron="5 * * * *", jitter=timedelta(minutes=20))
    airports.apply(catalog_with(HOURLY, source_schedule=late))
    worker = Worker(airports.project)
    done = [
        [report.view for report in reports]
        for minute in range(30)
        if (reports := worker.run_due(at(3, 5) + timedelta(minutes=minute)))
    ]
    assert done == [["extract:measured", "weather"]]


def test_how_long_an_extraction_took_is_in_the_ledger(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    airports.clock.set(at(9))
    Worker(airports.project).run_due(at(3, 10))
    (run,) = airports.project.ledger.runs("extract:measured")
    assert run.finished_at is not None
    assert run.finished_at > run.started_at == at(3, 10)


def test_what_a_scheduled_extraction_put_in_quarantine_is_in_its_run_and_in_the_log(
    airports: Airports, caplog: pytest.LogCaptureFixture
) -> None:
    contract = (
        "from tidemill.extract import Column, Contract\n\nCONTRACT = Contract(columns={'temp': Column(float, max=0)}"
    )
    body = EXTRACT.replace("\n\n@", f"\n{contract}, most_bad=1)\n\n@", 1)
    (airports.project.root / "extract.py").write_text(body.replace('"measured")', '"measured", contract=CONTRACT)'))
    airports.apply(catalog_with(HOURLY, source_schedule=HOURLY))
    report, _ = Worker(airports.project).run_due(at(3, 5))
    assert (report.rows_read, report.rows_written, report.rows_skipped) == (1, 0, 1)
    (run,) = airports.project.ledger.runs("extract:measured")
    assert (run.rows_read, run.rows_written, run.rows_skipped) == (1, 0, 1)
    assert "1 rows of 'measured' are in quarantine: temp is more than 0 (1)." in caplog.text


def test_a_source_that_somebody_extracts_by_hand_is_no_failure_and_comes_next_time(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=HOURLY))
    worker = Worker(airports.project)
    with alone(airports.project.state / "locks" / "extract-measured.lock", "extracting"):
        for minute in range(5, 60):
            assert worker.run_due(at(3, minute)) == []
    assert airports.project.ledger.runs() == []
    assert worker.given_up(at(4, 0)) == []
    assert [report.state for report in worker.run_due(at(4, 0))] == ["succeeded", "succeeded"]
    (run,) = airports.project.ledger.runs("extract:measured")
    assert (run.end, run.attempt, run.takeovers) == (at(3, 5), 1, 0)


def test_the_first_scheduled_extraction_goes_on_where_one_by_hand_has_ended(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=HOURLY))
    extract(airports.project, start=at(0) - timedelta(days=2), end=at(0) - timedelta(days=1))
    Worker(airports.project).run_due(at(5, 5))
    hours = airports.project.offline.scan("measured").collect().get_column("event_time")
    assert hours.sort().to_list() == [at(0) + timedelta(hours=hour) for hour in range(-48, 6)]


def test_a_source_that_nothing_extracts_holds_nothing_back(airports: Airports) -> None:
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    assert [report.view for report in Worker(airports.project).run_due(at(3, 10))] == ["weather"]
