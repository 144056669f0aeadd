"""What failed is tried again, is given up in the end, and rests while it is paused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
from worker_parts import EXTRACT, HOURLY, Airports, at, catalog_with

from tidemill.definitions import (
    CatchUp,
    Schedule,
)
from tidemill.schedule.switches import Switches
from tidemill.schedule.worker import Worker


def test_a_failed_run_is_tried_again_after_growing_waits_and_then_given_up(airports: Airports) -> None:
    airports.apply(catalog_with(replace(HOURLY, attempts=3)))
    airports.loads.failing = True
    worker = Worker(airports.project)
    tried = [
        second
        for second in range(0, 3_000, 10)
        if worker.run_due(at(3, 5) + timedelta(seconds=second))
    ]  # fmt: skip
    assert tried == [0, 30, 90]
    (letter,) = worker.given_up(at(3, 55))
    assert (letter.view, letter.end, letter.state) == ("weather", at(3, 5), "given up")


def test_a_run_that_began_in_time_is_tried_again_where_missed_ticks_are_skipped(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    skipping = Schedule(cron="5 * * * *", catch_up=CatchUp.SKIP, attempts=4)
    airports.apply(catalog_with(HOURLY, source_schedule=skipping))
    worker = Worker(airports.project)
    tried = [second for second in range(0, 3_000, 10) if worker.run_due(at(3, 5) + timedelta(seconds=second))]
    assert tried == [0, 30, 90, 210]
    assert [letter.view for letter in worker.given_up(at(3, 55))] == ["extract:measured"]
    assert worker.waiting(at(3, 55)) == {"weather": ("extract:measured",)}, "half of the data would be loaded"
    reports = Worker(airports.project).run_due(at(4, 7))
    assert [report.view for report in reports] == ["weather"], "a tick that nobody began is skipped"


def test_what_waits_for_another_task_is_not_skipped_meanwhile(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(replace(HOURLY, catch_up=CatchUp.SKIP), source_schedule=Schedule(cron="5 * * * *")))
    worker = Worker(airports.project)
    assert [report.state for report in worker.run_due(at(3, 5))] == ["failed"]
    (airports.project.root / "extract.py").write_text(EXTRACT)
    assert [(report.view, report.state) for report in worker.run_due(at(3, 9))] == [
        ("extract:measured", "succeeded"),
        ("weather", "succeeded"),
    ]


@pytest.mark.parametrize("catch_up", [CatchUp.LATEST, CatchUp.ALL])
def test_the_next_tick_begins_anew_and_does_the_missed_work(airports: Airports, catch_up: CatchUp) -> None:
    airports.apply(catalog_with(replace(HOURLY, attempts=1, catch_up=catch_up)))
    worker = Worker(airports.project)
    worker.run_due(at(2, 5))
    airports.loads.failing = True
    worker.run_due(at(3, 5))
    airports.loads.failing = False
    assert worker.run_due(at(3, 50)) == []
    assert [(report.start, report.end) for report in worker.run_due(at(4, 5))] == [(at(2, 5), at(4, 5))]


def test_what_was_given_up_is_extracted_with_the_next_tick_where_every_tick_is_run(airports: Airports) -> None:
    broken = EXTRACT.replace("temp=1.0", "temp=1 / 0")
    (airports.project.root / "extract.py").write_text(EXTRACT)
    every = Schedule(cron="1 * * * *", attempts=2, catch_up=CatchUp.ALL)
    airports.apply(catalog_with(HOURLY, source_schedule=every))
    worker = Worker(airports.project)
    worker.run_due(at(1, 10))
    (airports.project.root / "extract.py").write_text(broken)
    assert [len(worker.run_due(at(2, minute))) for minute in (1, 2, 3)] == [1, 1, 0]
    assert [letter.end for letter in worker.given_up(at(2, 59))] == [at(2, 1)]
    (airports.project.root / "extract.py").write_text(EXTRACT)
    ends = [report.end for report in worker.run_due(at(4, 10)) if report.view == "extract:measured"]
    assert ends == [at(3, 1), at(4, 1)]
    landed = pl.scan_parquet(airports.project.root / "data/measured").collect()
    assert landed["known_time"].sort().to_list() == [at(0, 1), at(1, 1), at(2, 1), at(3, 1)]
    assert worker.given_up(at(4, 11)) == []


def test_what_would_be_done_is_what_is_done(airports: Airports) -> None:
    """Not what is paused, waits for its next try, was given up, or waits for such a one."""
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *", attempts=2)))
    worker, switches = Worker(airports.project), Switches(airports.project.database, "airports")

    def told(now: datetime) -> list[tuple[str, list[datetime]]]:
        return [(task.name, [due.tick for due in runs]) for task, runs in Worker(airports.project).would_do(now)]

    assert told(at(3, 10)) == [("extract:measured", [at(3, 1)]), ("weather", [at(3, 5)])]
    worker.run_due(at(3, 10))
    assert told(at(3, 10)) == [], "the extraction waits to be tried again"
    worker.run_due(at(3, 11))
    assert told(at(3, 30)) == [], "it was given up"
    switches.retry("extract:measured", at=at(3, 31))
    switches.pause("weather", at=at(3, 31))
    assert told(at(3, 32)) == [("extract:measured", [at(3, 1)])]
    switches.pause("*", at=at(3, 33))
    assert told(at(3, 34)) == []


def test_what_was_given_up_is_tried_again_on_request(airports: Airports) -> None:
    airports.apply(catalog_with(replace(HOURLY, attempts=1)))
    airports.loads.failing = True
    worker = Worker(airports.project)
    worker.run_due(at(3, 5))
    airports.loads.failing = False
    assert worker.run_due(at(3, 30)) == []
    Switches(airports.project.database, "airports").retry("weather", at=at(3, 31))
    assert [report.state for report in worker.run_due(at(3, 32))] == ["succeeded"]


def test_failures_in_the_ledger_count_for_every_worker(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *", attempts=2)))
    first, second = Worker(airports.project), Worker(airports.project)
    assert len(first.run_due(at(3, 10))) == 1
    assert second.run_due(at(3, 10)) == []
    assert len(second.run_due(at(3, 11))) == 1
    assert first.run_due(at(3, 50)) == []
    (letter,) = Worker(airports.project).given_up(at(3, 50))
    assert "division by zero" in str(letter.error)


def test_a_paused_task_rests_until_it_is_resumed(airports: Airports) -> None:
    switches, worker = Switches(airports.project.database, "airports"), Worker(airports.project)
    switches.pause("weather", reason="the station is being moved", at=at(2))
    assert worker.run_due(at(3, 5)) == []
    assert switches.paused()["weather"].reason == "the station is being moved"
    switches.resume("weather", at=at(4))
    assert len(worker.run_due(at(4, 1))) == 1
    switches.pause("*", at=at(5))
    assert worker.run_due(at(6, 5)) == []


def test_a_run_that_takes_too_long_is_given_up_and_counts_as_failed(airports: Airports) -> None:
    slow = "import time\n" + EXTRACT.replace("hours = ", "for _ in range(2_000): time.sleep(0.01)\n    hours = ")
    (airports.project.root / "extract.py").write_text(slow)
    limited = Schedule(cron="1 * * * *", timeout=timedelta(milliseconds=200))
    airports.apply(catalog_with(HOURLY, source_schedule=limited))
    (report,) = Worker(airports.project).run_due(at(3, 10))
    assert report.state == "failed"
    assert "timeout" in str(report.error)
