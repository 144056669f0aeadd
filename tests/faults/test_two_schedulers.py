"""Two schedulers on one ledger: every interval is done exactly once, whichever of them comes first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hammering import hammering
from own_redis import closed_with_redis
from waiting import PATIENCE, PATIENT, wait_until

from tidemill.definitions import Catalog, CatchUp, Entity, Feature, Schedule, Source, ValueType, View
from tidemill.materialize.ledger import Run
from tidemill.project import Project, open_project

START = datetime(2013, 10, 1, tzinfo=UTC)
TICKS = 1_000
TICK = timedelta(seconds=1)
"""Clocks run 25 times as fast as they should: a scheduler that the machine keeps waiting for seconds must not look like
one whose clock is wrong."""

SCHEDULER = """
import random, sys, time
from datetime import datetime, timedelta
from tidemill.clock import ManualClock
from tidemill.materialize.run import Materializer
from tidemill.project import open_project
from tidemill.schedule.worker import Worker

root, start, ticks, seed = sys.argv[1], datetime.fromisoformat(sys.argv[2]), *map(float, sys.argv[3:5])
chance = random.Random(seed)
clock = ManualClock(start)
project = open_project(root, clock=clock)
project.materializer = Materializer(project, lease=timedelta(days=2))  # on so fast a clock no worker is dead so soon
worker = Worker(project)
end = start + timedelta(seconds=ticks - 1)
fast = timedelta(seconds=25)  # 25 ticks in a second
skew = timedelta(seconds=2 / 3 * seed)
done, at, over = 0, start, False
print("ready", flush=True)
sys.stdin.readline()
begun = time.monotonic()
while not over:
    over = at == end
    clock.set(at)
    done += sum(report.state == "succeeded" for report in worker.run_due(at))
    time.sleep(chance.random() / 50 if chance.random() < 0.9 else chance.random() / 5)
    at = max(at, min(start + fast * (time.monotonic() - begun) - skew, end))
project.close()
print(done)
"""


def view(name: str, catch_up: CatchUp) -> View:
    return View(
        name=name,
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="temp", dtype=ValueType.DOUBLE),),
        source="measured",
        schedule=Schedule(every=TICK, catch_up=catch_up),
    )


@pytest.fixture
def on_postgres(postgres: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """The same project with its ledger on PostgreSQL, as every process reads it from the environment."""
    monkeypatch.setenv("TIDEMILL_METADATA_URL", postgres.fresh_database())
    return request.getfixturevalue("project")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "feature_store.yaml").write_text("project: airports\ntidemill: {redis_timeout: 60}\n")
    instants = pl.datetime_range(START, START + TICKS * TICK, TICK, time_zone="UTC", eager=True)
    (tmp_path / "measured").mkdir()
    pl.DataFrame({"event_time": instants}).with_columns(
        origin=pl.lit("JFK"), temp=pl.int_range(pl.len()).cast(pl.Float64)
    ).write_parquet(tmp_path / "measured" / "rows.parquet")
    opened = open_project(tmp_path)
    opened.catalogs.add(
        Catalog(
            project="airports",
            entities=(Entity(name="origin", join_key="origin", dtype=ValueType.STRING),),
            sources=(Source(name="measured", path="measured", timestamp_field="event_time"),),
            views=(view("each", CatchUp.ALL), view("newest", CatchUp.LATEST)),
        ),
        at=START,
    )
    with closed_with_redis(opened):
        yield opened


def schedulers(project: Project, count: int, ticks: int) -> list[int]:
    """Run several schedulers over the same ticks at the same time; how many runs each of them made.

    Their clocks run fast, alike but for two thirds of a tick, from when all of them are ready.
    """
    arguments = [str(project.root), START.isoformat(), str(ticks)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCHEDULER, *arguments, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | PATIENT,
        )
        for seed in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    with hammering(lambda: newest(project), Forward(ticks), pause=0.005) as seen:
        answers = [process.communicate(timeout=10 * PATIENCE) for process in together(processes)]
        wait_until(lambda: seen.answers > 20)  # a busy machine may read less often while they run
    assert (seen.wrong, seen.refused) == ([], [])
    assert [process.returncode for process in processes] == [0] * count, [error for _, error in answers]
    return [int(said) for said, _ in answers]


def together(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Let all of them go before any is waited for."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def newest(project: Project) -> list[float | None]:
    """What a reader is told of the two views."""
    found = project.online.read_features(["each:temp", "newest:temp"], [{"origin": "JFK"}], full_feature_names=True)
    return [column[0] for column in found.values.values()]


class Forward:
    """A value is that of one of the ticks, and never of an older one again."""

    def __init__(self, ticks: int) -> None:
        self._ticks = ticks
        self._newest = [-1.0, -1.0]

    def __call__(self, found: list[float | None]) -> Iterator[str]:
        told = [-1.0 if temp is None else temp for temp in found]
        for before, now in zip(self._newest, told, strict=True):
            if now < before or now not in range(-1, self._ticks):
                yield f"{now} after {before}"
        self._newest = told


def succeeded(project: Project, name: str) -> list[Run]:
    runs = project.ledger.runs(name, limit=10 * TICKS)
    assert {run.state for run in runs} == {"succeeded"}
    return sorted(runs, key=lambda run: run.end)


def check(project: Project, made: list[int], ticks: int) -> None:
    ends = [START + tick * TICK for tick in range(ticks)]
    each, latest = succeeded(project, "each"), succeeded(project, "newest")
    assert [run.end for run in each] == ends
    assert [run.start for run in each[1:]] == ends[:-1]
    assert [run.start for run in latest[1:]] == [run.end for run in latest[:-1]]
    assert latest[-1].end == ends[-1]
    assert sum(made) == len(each) + len(latest)
    assert min(made) > 0, "both took part"
    assert newest(project) == [ticks - 1] * 2


@pytest.mark.slow
def test_two_schedulers_do_every_interval_of_a_thousand_ticks_exactly_once(project: Project) -> None:
    check(project, schedulers(project, 2, TICKS), TICKS)


def test_two_schedulers_on_postgresql_do_every_interval_exactly_once(on_postgres: Project) -> None:
    check(on_postgres, schedulers(on_postgres, 2, 150), 150)
