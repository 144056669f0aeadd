"""The metadata database locked, gone and without room while runs, schedules and readers go on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from waiting import PATIENCE, first_line_of, wait_until

from tidemill.definitions import Schedule
from tidemill.errors import UnavailableError
from tidemill.metadata.database import Database
from tidemill.schedule.worker import TaskReport, Worker

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 40
HOLDER = str(Path(__file__).with_name("metadata_holder.py"))


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another process holds an exclusive transaction meanwhile."""
    holder = subprocess.Popen([sys.executable, HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first_line_of(holder.stdout) == b"held\n"
    yield
    holder.communicate(b"enough\n", timeout=PATIENCE)
    assert holder.returncode == 0


def when_writing(world: Any, do: Any) -> None:
    """Have something happen in the middle of the next run: when it has read its source and is about to write."""
    store, write = world.project.online, world.project.online.write

    def first_do(*arguments: Any, **named: Any) -> Any:
        store.write = write
        do()
        return write(*arguments, **named)

    store.write = first_do


def ends_as_one_clean_run(world: Any) -> None:
    end = T0 + HOURS * HOUR
    assert world.materialize(end).state == "succeeded"
    assert {run.state for run in world.project.ledger.runs()} <= {"succeeded", "failed"}
    found = world.stored()
    assert found == world.clean_state(end)


def test_a_database_that_another_process_locks_is_waited_for(world: Any) -> None:
    world.materialize(T0)
    with world.reading() as seen, ThreadPoolExecutor(1) as thread:
        with locked(world.project.state / "metadata.db"):
            running = thread.submit(world.materialize, T0 + HOUR)
            before = seen.answers
            assert not wait([running], timeout=0.5).done
            wait_until(lambda: seen.answers > before + 10)
        report = running.result(PATIENCE)
    assert report.state == "succeeded"
    assert (seen.wrong, seen.refused) == ([], [])
    ends_as_one_clean_run(world)


def test_a_database_that_goes_away_in_the_middle_of_a_run_holds_up_the_next_run_not_at_all(
    world: Any, postgres: Any
) -> None:
    """The run's end cannot be written while the server is down; it is owed, and written when it is up again."""
    world.project.close()
    world.project = world.open_project(metadata_url=SecretStr(postgres.fresh_database()))
    assert world.materialize(T0).state == "succeeded"
    with world.reading() as seen:
        when_writing(world, lambda: postgres.stop(signal.SIGQUIT))
        try:
            with pytest.raises(UnavailableError, match="metadata database"):
                world.materialize(T0 + HOUR)
        finally:
            postgres.start()
        report = world.materialize(T0 + 2 * HOUR)
    assert report.state == "succeeded"
    assert [(run.end, run.state) for run in world.project.ledger.runs()] == [
        (T0 + 2 * HOUR, "succeeded"),
        (T0 + HOUR, "failed"),
        (T0, "succeeded"),
    ]
    assert (seen.wrong, seen.refused) == ([], [])
    ends_as_one_clean_run(world)


def test_a_scheduler_outlives_a_database_that_is_gone_for_a_while(
    world: Any, postgres: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.schedule.worker._LONGEST_SLEEP", 0.05)
    world.project.close()
    world.project = world.open_project(metadata_url=SecretStr(postgres.fresh_database()))
    catalog = world.project.catalog
    hourly = replace(catalog.view("weather"), schedule=Schedule(cron="0 * * * *"))
    world.project.catalogs.add(replace(catalog, views=(hourly,)), at=T0)
    world.project.reload()
    stop, reports = threading.Event(), list[TaskReport]()
    world.clock.set(T0)
    worker = Worker(world.project)
    thread = threading.Thread(target=worker.run, args=(stop,), kwargs={"on_report": reports.append})
    thread.start()
    try:
        wait_until(lambda: len(reports) == 1)
        with world.reading() as seen:
            postgres.stop()
            world.clock.set(T0 + HOUR)
            wait_until(lambda: "does not answer" in caplog.text)
            postgres.start()
            wait_until(lambda: len(reports) == 2)
        assert (seen.wrong, seen.refused) == ([], [])
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [(report.end, report.state) for report in reports] == [(T0, "succeeded"), (T0 + HOUR, "succeeded")]


def test_a_full_disk_under_the_ledger_ends_the_run_with_advice_and_the_next_run_is_clean(
    world: Any, small_disk: Path
) -> None:
    filler = small_disk / "filler"
    world.project.close()
    world.project = world.open_project(metadata_url=SecretStr(f"sqlite:///{small_disk / 'metadata.db'}"))
    assert world.materialize(T0).state == "succeeded"
    with world.reading() as seen:
        when_writing(world, lambda: fill(filler))
        with pytest.raises(UnavailableError, match="Make room"):
            run_on(world)
        filler.unlink()
    assert (seen.wrong, seen.refused) == ([], [])
    end = T0 + HOURS * HOUR
    assert world.materialize(end).state == "succeeded"
    found = world.stored()
    assert found == world.clean_state(end)


def test_where_no_file_may_grow_the_ledger_says_so_and_loses_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same by a limit on the size of files, which every user can set."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # half a compiled module would be left for all who come
    assert world.materialize(T0).state == "succeeded"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with world.reading() as seen, pytest.raises(UnavailableError, match="metadata database"):
            world.materialize(T0 + HOUR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (seen.wrong, seen.refused) == ([], [])
    ends_as_one_clean_run(world)


def run_on(world: Any) -> None:
    """Until the pages are used up that the database still has."""
    for number in range(1, 400):
        world.project.ledger.claim(f"other{number}", start=None, end=T0, at=T0, catalog_digest="d" * 64)
        world.materialize(T0 + min(number, 20) * HOUR)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as target:
        try:
            while True:
                target.write(b"x" * 4_096)
        except OSError:
            os.fsync(target.fileno())


def test_a_server_whose_machine_is_gone_without_a_word_is_given_up_after_a_minute(postgres: Any) -> None:
    """The system alone asks for two hours whether it is there. What the URL says goes before."""

    def asked_for(url: str) -> dict[str, str]:
        with closing(Database(url)) as database, database.engine.connect() as connection:
            return connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]

    url = postgres.fresh_database()
    found, told = asked_for(url), asked_for(f"{url}&tcp_user_timeout=5000")
    assert found["tcp_user_timeout"] == "60000"
    assert int(found["keepalives_idle"]) + int(found["keepalives_count"]) * int(found["keepalives_interval"]) == 60
    assert told["tcp_user_timeout"] == "5000"
