"""Materialization under fire: killed, cut off from Redis, with Redis full, its ledger locked, its source replaced."""

from __future__ import annotations

import json
import multiprocessing
import random
import runpy
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from tidemill.clock import ManualClock
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, Source, ValueType, View
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WORKER = str(Path(__file__).with_name("materialize_worker.py"))
ENTITIES, HOURS = 400, 40


def catalog() -> Catalog:
    features = (Feature(name="temp", dtype=ValueType.DOUBLE), Feature(name="wind", dtype=ValueType.INT64))
    return Catalog(
        project="flights",
        entities=(Entity(name="origin", join_key="origin", dtype=ValueType.INT64),),
        sources=(Source(name="weather", path="data", timestamp_field="at", known_field="known"),),
        views=(View(name="weather", entities=("origin",), join_keys=("origin",), features=features, source="weather"),),
        services=(Service(name="s", projections=(Projection(view="weather", features=("temp", "wind")),)),),
    )


def write_history(root: Path, *, file: str = "a", scale: float = 1.0) -> None:
    """Every entity hourly, a tenth of the rows known late; `wind` always belongs to `temp`."""
    chance = random.Random(3)
    rows = [
        (entity, T0 + hour * HOUR, T0 + (hour + chance.choice([0] * 9 + [2])) * HOUR, scale * (1_000 * hour + entity))
        for hour in range(HOURS)
        for entity in range(ENTITIES)
    ]
    schema = {"origin": pl.Int64, "at": pl.Datetime("us", "UTC"), "known": pl.Datetime("us", "UTC"), "temp": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        (2 * pl.col("temp")).cast(pl.Int64).alias("wind")
    )
    (root / "data").mkdir(exist_ok=True)
    fresh = root / f"{file}.tmp"
    frame.write_parquet(fresh)
    fresh.rename(root / "data" / f"{file}.parquet")


def open_project(root: Path, address: str, **settings) -> Project:
    (root / "feature_store.yaml").write_text("project: flights\n")
    project = Project(
        root, settings=Settings(redis_url=address, **settings), name="flights", clock=ManualClock(T0 + 2 * HOURS * HOUR)
    )
    project.catalogs.add(catalog(), at=T0)
    return project


def stored(address: str) -> dict[bytes, dict[bytes, bytes]]:
    """Everything in Redis, but for when each value was learned: a run that was put off learns it later."""
    with redis.Redis.from_url(address) as client:
        return {
            key: {name: raw[:16] if name.startswith(b"_kt:") else raw for name, raw in client.hgetall(key).items()}
            for key in client.scan_iter(count=10_000)
        }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis", maxmemory="256mb")
    server.ensure_started()
    yield server
    server.stop()


@pytest.fixture
def project(tmp_path: Path, server: EmbeddedRedis) -> Iterator[Project]:
    write_history(tmp_path)
    project = open_project(tmp_path, server.url)
    yield project
    project.close()


def materialize(project: Project, until: datetime):
    return project.materializer.materialize(until=until, at=max(until, T0 + HOURS * HOUR))


def clean_state(project: Project, server: EmbeddedRedis, until: datetime) -> dict:
    """What one run that nothing disturbs leaves."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    online = project.online
    online.write("weather", project.offline.latest("weather", end=until), learned=until)
    return stored(server.url)


@contextmanager
def reader(project: Project) -> Iterator[list[str]]:
    """Reads all the while; what it finds wrong ends up in the list."""
    over, wrong = threading.Event(), []
    rows = [{"origin": entity} for entity in range(20)]

    def read() -> None:
        while not over.is_set():
            try:
                found = project.online.read("s", rows).values
            except OnlineStoreUnavailableError as error:
                wrong.append(str(error))
                time.sleep(0.01)
                continue
            for temp, wind in zip(found["temp"], found["wind"], strict=True):
                if (temp is None) is not (wind is None) or (temp is not None and wind != int(2 * temp)):
                    wrong.append(f"{temp} beside {wind}")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_killed_at_random_points_of_a_hundred_runs_the_store_ends_as_after_one_clean_run(
    project: Project, server: EmbeddedRedis, tmp_path: Path
):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tidemill.materialize.run", "tidemill.offline.store", "tidemill.online.store"])
    chance = random.Random(11)

    def start(until: datetime) -> multiprocessing.process.BaseProcess:
        settings = {"ROOT": str(tmp_path), "ADDRESS": server.url, "UNTIL": until.isoformat()}
        worker = context.Process(target=runpy.run_path, args=(WORKER, settings))
        worker.start()
        return worker

    begun = time.monotonic()
    start(T0).join()
    usual = time.monotonic() - begun
    with reader(project) as wrong:
        for number in range(100):
            worker = start(T0 + (1 + number * (HOURS - 2) // 100) * HOUR)
            worker.join(chance.uniform(0, usual))
            worker.kill()
            worker.join()
        end = T0 + HOURS * HOUR
        last = start(end)
        last.join()
    assert last.exitcode == 0
    assert wrong == []
    runs = project.ledger.runs(limit=1_000)
    assert {run.state for run in runs} == {"succeeded"}
    assert len({(run.start, run.end) for run in runs}) == len(runs)
    found = stored(server.url)
    assert found == clean_state(project, server, end)


def test_redis_restarted_during_runs_costs_a_failed_run_and_nothing_else(project: Project, server: EmbeddedRedis):
    over = threading.Event()

    def restart() -> None:
        while not over.wait(0.15):
            server.stop()
            time.sleep(0.05)
            server.ensure_started()

    cutter = threading.Thread(target=restart)
    cutter.start()
    try:
        for hour in range(1, 30):
            materialize(project, T0 + hour * HOUR)
    finally:
        over.set()
        cutter.join()
    server.ensure_started()
    end = T0 + HOURS * HOUR
    assert materialize(project, end)[-1].state == "succeeded"
    failed = [run for run in project.ledger.runs(limit=1_000) if run.state == "failed"]
    assert all("Redis" in (run.error or "") for run in failed)
    found = stored(server.url)
    assert found == clean_state(project, server, end)


def test_a_full_redis_fails_the_run_with_advice_and_reads_go_on(project: Project, server: EmbeddedRedis):
    assert materialize(project, T0 + HOUR)[0].state == "succeeded"
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        with reader(project) as wrong:
            (report,) = materialize(project, T0 + 5 * HOUR)
        assert report.state == "failed"
        assert "redis_maxmemory" in report.error
        assert wrong == []
        client.config_set("maxmemory", "256mb")
    assert materialize(project, T0 + 5 * HOUR)[0].state == "succeeded"
    found = stored(server.url)
    assert found == clean_state(project, server, T0 + 5 * HOUR)


def test_a_ledger_locked_for_a_while_is_waited_for(project: Project, tmp_path: Path):
    project.ledger.runs()
    other = sqlite3.connect(tmp_path / ".tidemill" / "metadata.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    released: list[str] = []

    def release() -> None:
        released.append("released")
        other.execute("ROLLBACK")

    threading.Timer(1.0, release).start()
    (report,) = materialize(project, T0 + HOUR)
    other.close()
    assert (report.state, released) == ("succeeded", ["released"])


def test_a_source_replaced_during_runs_is_read_whole_or_fails(project: Project, server: EmbeddedRedis, tmp_path: Path):
    over = threading.Event()

    def replace_files() -> None:
        scale = 1.0
        while not over.is_set():
            scale += 1
            write_history(tmp_path, scale=scale)

    writer = threading.Thread(target=replace_files)
    writer.start()
    try:
        with reader(project) as wrong:
            reports = [materialize(project, T0 + hour * HOUR)[-1] for hour in range(1, 25)]
    finally:
        over.set()
        writer.join()
    assert wrong == []
    assert {report.state for report in reports} <= {"succeeded", "failed"}
    assert "succeeded" in {report.state for report in reports}


def test_a_clock_that_jumps_back_undoes_nothing(project: Project, server: EmbeddedRedis):
    materialize(project, T0 + 20 * HOUR)
    before = stored(server.url)
    (report,) = project.materializer.materialize(until=T0 + HOUR, at=T0 + HOUR)
    assert (report.state, report.rows_written) == ("succeeded", 0)
    assert stored(server.url) == before
    assert project.ledger.last_cutoff("weather") == T0 + 20 * HOUR


def test_a_claim_lost_to_another_worker_is_not_reported_as_done(project: Project):
    claim = project.ledger.claim("weather", start=None, end=T0, at=T0, by="slow:1:1", lease=HOUR)
    assert claim is not None
    reports = materialize(project, T0)
    assert [report.state for report in reports] == ["succeeded"]
    assert [run.claimed_by for run in project.ledger.runs()] != ["slow:1:1"]


def test_progress_of_a_dead_worker_is_taken_up(project: Project, server: EmbeddedRedis):
    """The first pieces are not read again: rows before the saved instant would be counted twice."""
    end = T0 + HOURS * HOUR
    claim = project.ledger.claim("weather", start=None, end=end, at=T0, by="gone:1:1", lease=HOUR)
    assert claim is not None
    half = T0 + 20 * HOUR
    project.online.write("weather", project.offline.latest("weather", end=half), learned=end)
    counts = dict.fromkeys(("rows_read", "rows_written", "rows_unchanged", "rows_skipped"), 0)
    project.ledger.save_progress(claim, json.dumps({"done": half.isoformat(), **counts}), at=T0)
    (report,) = materialize(project, end)
    assert report.state == "succeeded"
    assert report.rows_read < ENTITIES * HOURS * 0.6
    found = stored(server.url)
    assert found == clean_state(project, server, end)


def test_a_view_redefined_between_runs_starts_where_it_was(project: Project):
    materialize(project, T0 + HOUR)
    project.catalogs.add(replace(project.catalog, services=()), at=T0)
    project.reload()
    assert materialize(project, T0 + 2 * HOUR)[0].start == T0 + HOUR
