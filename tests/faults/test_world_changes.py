"""What changes under a run that is at work: the clock, the files of its source, the view itself."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from waiting import PATIENCE

from tidemill.definitions import Schedule
from tidemill.errors import NotDefinedError
from tidemill.schedule.worker import Worker

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 40


def ends_as_one_clean_run(world: Any, end: datetime) -> None:
    assert world.materialize(end).state in ("succeeded", "current")
    found = world.stored()
    assert found == world.clean_state(end)


def test_a_clock_that_jumps_back_undoes_nothing(world: Any) -> None:
    world.materialize(T0 + 20 * HOUR)
    before = world.stored()
    with world.reading() as seen:
        report = world.materialize(T0 + HOUR, at=T0 + HOUR)
    assert (seen.wrong, seen.refused) == ([], [])
    assert (report.state, report.rows_written) == ("succeeded", 0)
    assert world.stored() == before
    assert world.project.ledger.last_cutoff("weather") == T0 + 20 * HOUR


def test_a_clock_that_jumps_back_and_forth_loses_no_tick_and_no_row(world: Any) -> None:
    """Hours back, days ahead and right again, by chance: what was claimed from the future holds nothing up."""
    catalog, chance = world.project.catalog, random.Random(8)
    hourly = replace(catalog.view("weather"), schedule=Schedule(cron="0 * * * *"))
    world.project.catalogs.add(replace(catalog, views=(hourly,)), at=T0)
    world.project.reload()
    with world.reading() as seen:
        for hour in range(HOURS):
            for wrong in (chance.uniform(-30, 60), 0):
                at = T0 + (hour + wrong) * HOUR
                world.clock.set(at)
                Worker(world.project).run_due(at)
    assert (seen.wrong, seen.refused) == ([], [])
    later = T0 + 200 * HOUR  # when everything is known that a clock ahead may have seen
    world.clock.set(later)
    (report,) = Worker(world.project).run_due(later)
    assert (report.state, report.end) == ("succeeded", later)
    found = world.stored()
    assert found == world.clean_state(later)
    assert Worker(world.project).run_due(later) == []


def test_a_worker_is_not_taken_for_dead_when_the_clock_of_its_machine_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a process began is told in wall time by most tools, and that changes with the clock."""
    import psutil

    from tidemill.materialize.holders import is_dead, this_worker

    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3_600)"])
    try:
        machine = this_worker().rsplit(":", 2)[0]
        monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
        assert not is_dead(this_worker())
        assert is_dead(f"{machine}:{sleeper.pid}:1")
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_source_replaced_during_runs_is_read_whole_or_fails(world: Any) -> None:
    """Each value is of one history or of the next, never older than the one before, and no row is of both."""
    over, written, chance = threading.Event(), [0], random.Random(6)
    began = time.monotonic()
    world.materialize(T0)
    usual = time.monotonic() - began  # some runs are to meet a replacement, and others none

    def replace_files() -> None:
        for edition in range(1, 500):
            if over.wait(chance.uniform(0, 4 * usual)):
                return
            world.write_history(edition=edition)
            written.append(edition)

    hours = iter(range(1, HOURS))
    with world.reading() as seen, ThreadPoolExecutor(1) as writer:
        writing = writer.submit(replace_files)
        try:
            reports = [world.materialize(T0 + next(hours) * HOUR) for _ in range(24)]
            while len(written) < 4 and not writing.done():
                reports.append(world.materialize(T0 + next(hours, HOURS) * HOUR))
        finally:
            over.set()
        writing.result(PATIENCE)
    assert len(written) > 3
    assert (seen.wrong, seen.refused) == ([], [])
    assert {report.state for report in reports} <= {"succeeded", "failed", "current"}
    assert "succeeded" in {report.state for report in reports}
    world.project.ledger.forget("weather", at=T0)
    ends_as_one_clean_run(world, T0 + HOURS * HOUR)


@pytest.mark.parametrize("how", ["run", "backfill"])
def test_a_view_removed_while_it_runs_leaves_nothing_behind_and_readers_see_it_go(world: Any, how: str) -> None:
    from tidemill.materialize.backfill import backfill

    world.materialize(T0)
    store, write = world.project.online, world.project.online.write

    def removed_meanwhile(*arguments: Any, **named: Any) -> Any:
        store.write = write
        result = write(*arguments, **named)
        gone = replace(world.project.catalog, views=(), services=())
        world.project.catalogs.add(gone, at=T0)
        return result

    store.write = removed_meanwhile
    with world.reading(goes=True) as seen:
        if how == "run":
            report = world.materialize(T0 + 5 * HOUR)
        else:
            (report,) = backfill(world.project, "weather", start=T0, end=T0 + 5 * HOUR)
    assert report.state == "failed"
    assert "removed while it ran" in str(report.error)
    assert (seen.wrong, seen.refused) == ([], [])
    assert world.stored() == {}
    world.project.reload()
    with pytest.raises(NotDefinedError, match="weather"):
        world.project.materializer.materialize(until=T0 + 9 * HOUR, at=T0 + 9 * HOUR, views=["weather"])


def test_a_view_redefined_between_runs_starts_where_it_was(world: Any) -> None:
    world.materialize(T0 + HOUR)
    world.project.catalogs.add(replace(world.project.catalog, services=()), at=T0)
    world.project.reload()
    assert world.materialize(T0 + 2 * HOUR).start == T0 + HOUR
