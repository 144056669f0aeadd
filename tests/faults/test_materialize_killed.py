"""Materialization killed at any instant, and what its claim and progress are then good for."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import runpy
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from waiting import wait_for_end_of, wait_until

from tidemill.definitions import Schedule
from tidemill.schedule.switches import Switches
from tidemill.schedule.worker import Worker

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WORKER = str(Path(__file__).with_name("materialize_worker.py"))
HOURS = 40


def forkserver() -> Any:
    """Where workers start in an instant: what they import is there already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tidemill.materialize.backfill", "tidemill.offline.store", "tidemill.online.store"])
    return context


@pytest.mark.slow
def test_killed_at_random_points_of_a_hundred_runs_the_store_ends_as_after_one_clean_run(world: Any):
    context = forkserver()
    chance = random.Random(11)

    def start(until: datetime) -> multiprocessing.process.BaseProcess:
        settings = {"ROOT": str(world.root), "ADDRESS": world.server.url, "UNTIL": until.isoformat()}
        worker = context.Process(target=runpy.run_path, args=(WORKER, settings))
        worker.start()
        return worker

    wait_for_end_of(start(T0))  # the first one waits for what they all import
    usual, ends = [_seconds(start(T0 + HOUR))], list[int | None]()
    with world.reading() as seen:
        for number in range(100):
            worker, answers = start(T0 + (1 + number * (HOURS - 2) // 100) * HOUR), seen.answers
            began = time.monotonic()
            worker.join(chance.uniform(0, usual[-1]))
            worker.kill()
            worker.join()
            ends.append(worker.exitcode)
            if worker.exitcode == 0:  # the machine may be less busy than it was, or more
                usual.append(time.monotonic() - began)
            wait_until(lambda answers=answers: seen.answers > answers + 10)
        end = T0 + HOURS * HOUR
        last = start(end)
        wait_for_end_of(last)
    assert last.exitcode == 0
    assert (seen.wrong, seen.refused) == ([], [])
    assert set(ends) <= {0, -signal.SIGKILL}
    assert ends.count(-signal.SIGKILL) > 20
    runs = world.project.ledger.runs(limit=1_000)
    assert {run.state for run in runs} == {"succeeded"}
    assert len({(run.start, run.end) for run in runs}) == len(runs)
    found = world.stored()
    assert found == world.clean_state(end)


def _seconds(worker: multiprocessing.process.BaseProcess) -> float:
    began = time.monotonic()
    wait_for_end_of(worker)
    assert worker.exitcode == 0
    return time.monotonic() - began


def test_a_backfill_that_is_killed_goes_on_with_the_pieces_that_are_left(world: Any):
    from tidemill.materialize.backfill import backfill

    start, end, project = T0 - HOUR, T0 + HOURS * HOUR, world.project
    context = forkserver()
    settings = {"ROOT": str(world.root), "ADDRESS": world.server.url, "NOW": world.clock.now().isoformat()}
    settings |= {"START": start.isoformat(), "END": end.isoformat()}
    script = str(Path(__file__).with_name("backfill_worker.py"))
    killed_at: list[int] = []
    with world.reading() as seen:
        for more in (5, 12):
            worker = context.Process(target=runpy.run_path, args=(script, settings | {"AT_MOST": more + 2}))
            worker.start()
            enough = sum(killed_at[-1:]) + more
            wait_until(lambda worker=worker, enough=enough: _pieces_done(world) >= enough or not worker.is_alive())
            assert worker.is_alive()
            worker.kill()
            worker.join()
            killed_at.append(_pieces_done(world))
        (report,) = backfill(project, "weather", start=start, end=end)
    assert (report.state, _pieces_done(world)) == ("succeeded", 48)
    assert killed_at[1] < 48
    (run,) = project.ledger.runs()
    # A row counts in the piece of its event and, where it was known in another, in that one too. A piece that was at
    # work when its process was killed is counted once, when it is done.
    (whole,) = backfill(project, "weather", start=start, end=end)
    assert run.rows_read == whole.rows_read
    assert (seen.wrong, seen.refused) == ([], [])
    found = world.stored()
    assert found == world.clean_state(end)


def _pieces_done(world: Any) -> int:
    (*_, run) = world.project.ledger.runs() or [None]
    return len(json.loads(run.progress)["done"]) if run is not None and run.progress else 0


def test_a_claim_lost_to_another_worker_is_not_reported_as_done(world: Any):
    claim = world.project.ledger.claim("weather", start=None, end=T0, at=T0, by="slow:1:1", lease=HOUR)
    assert claim is not None
    assert world.materialize(T0).state == "succeeded"
    assert [run.claimed_by for run in world.project.ledger.runs()] != ["slow:1:1"]


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_is_killed_is_taken_over_at_its_chunk_unless_redis_lost_what_it_wrote(
    world: Any, lost: bool
) -> None:
    end, ledger = T0 + HOURS * HOUR, world.project.ledger
    settings = {"ROOT": str(world.root), "ADDRESS": world.server.url, "UNTIL": end.isoformat(), "AT_MOST": 5}
    worker = forkserver().Process(target=runpy.run_path, args=(WORKER, settings))
    worker.start()
    wait_until(lambda: (world.root / "still").exists() or not worker.is_alive())
    assert worker.is_alive()
    worker.kill()
    worker.join()
    if lost:
        world.project.online.resp.call("FLUSHALL")
    report = world.materialize(end)
    assert (report.state, report.went_on_from is None) == ("succeeded", lost)
    assert report.rows_read == rows_until(world, end)
    assert [(run.state, run.attempt) for run in ledger.runs()] == [("succeeded", 1)]
    found = world.stored()
    assert found == world.clean_state(end)


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_during_which_redis_is_killed_goes_on_at_its_chunk_unless_redis_comes_back_empty(
    world: Any, lost: bool
) -> None:
    end = T0 + HOURS * HOUR
    world.project.close()
    world.project = world.open_project(memory_limit="201mb")
    write, written = world.project.online.write, list[str]()

    def killed_at_the_sixth(view: str, *arguments: Any, **named: Any) -> Any:
        written.append(view)
        if len(written) == 6:
            os.kill(world.server.pid, signal.SIGKILL)
            wait_until(lambda: not world.server.running)
        return write(view, *arguments, **named)

    world.project.online.write = killed_at_the_sixth
    assert world.materialize(end).state == "failed"
    chunks = len(written) - 1
    world.server.ensure_started()
    if lost:
        world.project.online.resp.call("FLUSHALL")
    report = world.materialize(end)
    assert (report.state, report.went_on_from is None) == ("succeeded", lost)
    assert report.rows_read == rows_until(world, end)
    assert (chunks, [run.attempt for run in world.project.ledger.runs()]) == (5, [2, 1])
    found = world.stored()
    assert found == world.clean_state(end)


def rows_until(world: Any, end: datetime) -> int:
    """Those that happened and were known by then: what a run reads, each once."""
    rows = world.project.offline.scan("weather")
    return rows.filter(pl.max_horizontal("at", "known") <= end).collect().height


def test_a_run_that_kills_every_worker_is_given_up_and_readers_keep_what_they_had(world: Any):
    """Both tries that are declared end a process; the third worker lives on, says why, and tries again on request."""
    before, now = T0 - HOUR, T0 + HOUR
    world.materialize(before, at=before)
    schedule = Schedule(cron="0 * * * *", attempts=2)
    views = tuple(replace(view, schedule=schedule) for view in world.project.catalog.views)
    world.project.catalogs.add(replace(world.project.catalog, views=views), at=before)
    world.project.reload()
    settings = {"ROOT": str(world.root), "ADDRESS": world.server.url, "NOW": now.isoformat()}
    script, context = str(Path(__file__).with_name("doomed_worker.py")), forkserver()
    worker = Worker(world.project)
    with world.reading() as seen:
        for _ in range(2):
            assert worker.given_up(now) == []
            doomed = context.Process(target=runpy.run_path, args=(script, settings))
            doomed.start()
            doomed.join()
            assert doomed.exitcode == -signal.SIGKILL
        (report,) = worker.run_due(now)
        assert (report.state, worker.run_due(now + HOUR / 2)) == ("failed", [])
        (letter,) = worker.given_up(now)
        assert letter.error == report.error
        assert "2 times in a row" in str(letter.error)
        assert "tidemill schedule retry weather" in str(letter.error)
        (newest, *_) = world.project.ledger.runs("weather")
        assert (newest.state, newest.error, newest.takeovers) == ("failed", letter.error, 1)
        Switches(world.project.database, "flights").retry("weather", at=now + HOUR / 2)
        (report,) = worker.run_due(now + HOUR / 2)
    assert report.state == "succeeded"
    assert (seen.wrong, seen.refused) == ([], [])


def test_a_run_whose_claim_is_taken_over_while_it_works_says_so_and_stops_no_other(world: Any):
    """A worker that was silent for longer than its lease wakes up: what it wrote is right, the row is another's."""
    ledger, write = world.project.ledger, world.project.online.write

    def write_slowly(*arguments: Any, **named: Any) -> Any:
        world.project.online.write = write
        other = ledger.claim("weather", start=None, end=T0, at=T0 + 99 * HOUR, by="quick:1:1")
        assert other is not None
        ledger.succeed(other, cutoff=T0, rows_read=1, rows_written=1, rows_skipped=0, at=T0 + 99 * HOUR)
        return write(*arguments, **named)

    world.project.online.write = write_slowly
    report = world.materialize(T0)
    assert report.state == "failed"
    assert "taken over" in str(report.error)
    assert [(run.state, run.claimed_by) for run in ledger.runs()] == [("succeeded", "quick:1:1")]
