"""Redis restarted, killed, slowed, filled up and without a disk while runs write to it and a reader reads."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import redis
from stalling import stalled
from waiting import PATIENCE, wait_until

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 40


@contextmanager
def again_and_again(fault: Callable[[], None], *, every: Callable[[], float]) -> Iterator[None]:
    """Let something happen again and again after so many seconds, from another thread."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(every()):
            fault()

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        try:
            yield
        finally:
            over.set()
            working.result(PATIENCE)


def run_through(world: Any, hours: int = 30) -> list[Any]:
    return [world.materialize(T0 + hour * HOUR) for hour in range(1, hours)]


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as target, suppress(OSError):
        while True:
            target.write(b"x" * 4_096)


def ends_as_one_clean_run(world: Any) -> None:
    end = T0 + HOURS * HOUR
    assert world.materialize(end).state == "succeeded"
    found = world.stored()
    assert found == world.clean_state(end)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_redis_that_restarts_costs_failed_runs_and_refused_reads_and_nothing_else(world: Any, how: str) -> None:
    def restart() -> None:
        if how == "killed":
            os.kill(world.server.pid, signal.SIGKILL)
            time.sleep(0.05)
        else:
            world.server.stop()
        world.server.ensure_started()

    world.materialize(T0)
    with world.reading() as seen, again_and_again(restart, every=lambda: 0.15):
        run_through(world)
        wait_until(lambda: seen.answers > 20 and seen.refused)  # it was really away
    world.server.ensure_started()
    assert seen.wrong == []
    assert all("Redis" in reason for reason in seen.refused)
    failed = [run for run in world.project.ledger.runs(limit=1_000) if run.state == "failed"]
    assert all("Redis" in (run.error or "") for run in failed)
    ends_as_one_clean_run(world)


def test_a_redis_that_stalls_delays_and_refuses_but_never_lies(world: Any) -> None:
    """It stands still for longer than a reader waits: what was sent is answered later, to nobody else."""
    world.materialize(T0)
    world.project.close()
    world.project = world.open_project(redis_timeout=0.2)

    def stall() -> None:
        before = len(seen.refused)
        with stalled(world.server.pid):
            wait_until(lambda: len(seen.refused) > before)

    with world.reading() as seen, again_and_again(stall, every=lambda: 0.2):
        reports = run_through(world, 20)
        wait_until(lambda: seen.answers > 20 and seen.refused)
    assert seen.wrong == []
    assert all("did not answer within" in reason for reason in seen.refused)
    assert {report.state for report in reports} <= {"succeeded", "failed", "held"}
    world.project.close()
    world.project = world.open_project()
    ends_as_one_clean_run(world)


def test_a_redis_that_holds_writers_back_keeps_the_old_values_until_it_lets_them_go(world: Any) -> None:
    world.materialize(T0)
    with redis.Redis.from_url(world.server.url) as client, world.reading() as seen:
        client.execute_command("CLIENT", "PAUSE", "400", "WRITE")
        report = world.materialize(T0 + 5 * HOUR)
    assert report.state == "succeeded"
    assert (seen.wrong, seen.refused) == ([], [])
    ends_as_one_clean_run(world)


def test_a_full_redis_fails_the_run_with_advice_and_reads_go_on(world: Any) -> None:
    """It fills up while runs write: some batches were taken, others not, and no row is there by halves."""
    began = time.monotonic()
    assert world.materialize(T0 + HOUR).state == "succeeded"
    usual, chance = time.monotonic() - began, random.Random(4)
    with redis.Redis.from_url(world.server.url) as client, world.reading() as seen:
        full = [1, 256 * 2**20]

        def fill_or_empty() -> None:
            full.reverse()
            client.config_set("maxmemory", full[0])

        states: set[str] = set()
        hours = iter(range(2, 35))
        with again_and_again(fill_or_empty, every=lambda: chance.uniform(0, usual)):
            for hour in islice(hours, 28):
                states.add(world.materialize(T0 + hour * HOUR).state)
        # Whatever chance has made of those, one more meets an empty Redis, and one a full one.
        for limit in (256 * 2**20, 1):
            client.config_set("maxmemory", limit)
            report = world.materialize(T0 + next(hours) * HOUR)
            states.add(report.state)
        client.config_set("maxmemory", 256 * 2**20)
    assert report.state == "failed"
    assert "redis_maxmemory" in str(report.error)
    assert states == {"succeeded", "failed"}
    assert (seen.wrong, seen.refused) == ([], [])
    ends_as_one_clean_run(world)


def test_a_redis_without_room_on_its_disk_fails_the_run_and_reads_go_on(world: Any, small_disk: Path) -> None:
    """Redis takes no writes while its append-only file cannot grow, and goes on when it can."""
    from tidemill.online.embedded import EmbeddedRedis

    world.project.close()
    world.server = EmbeddedRedis(small_disk / "redis")
    world.server.ensure_started()
    try:
        world.project = world.open_project()
        assert world.materialize(T0 + HOUR).state == "succeeded"
        filler = small_disk / "filler"
        with world.reading() as seen:
            fill(filler)
            reports = run_through(world)
            filler.unlink()
            wait_until(lambda: world.materialize(T0 + 35 * HOUR).state != "failed", every=0.1)
            wait_until(lambda: seen.answers > 20)
        assert "failed" in {report.state for report in reports}
        assert any("disk" in str(report.error) or "AOF" in str(report.error) for report in reports)
        assert (seen.wrong, seen.refused) == ([], [])
        ends_as_one_clean_run(world)
    finally:
        world.server.stop()
