"""The metadata database is SQLite or PostgreSQL, and nobody can tell which: one suite over both."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from waiting import PATIENCE, wait_for_end_of

from tidemill.clock import to_micros
from tidemill.definitions import Catalog, Entity, ValueType
from tidemill.errors import ConfigurationError, ConflictError, UnavailableError
from tidemill.materialize.ledger import Ledger
from tidemill.metadata import migrations
from tidemill.metadata.catalogs import CatalogRepository
from tidemill.metadata.database import Database
from tidemill.metadata.reports import ReportRepository
from tidemill.metadata.tables import Base
from tidemill.schedule.switches import Switches

T0 = datetime(2013, 10, 1, 12, 30, 0, 123_456, tzinfo=UTC)
HOUR = timedelta(hours=1)

OPEN = """
import sys
from tidemill.metadata.database import Database
from tidemill.materialize.ledger import Ledger
from tidemill.metadata.catalogs import CatalogRepository
sys.stdin.readline()
print(CatalogRepository(Database(sys.argv[1]), "flights").newest_version())
"""


@pytest.fixture
def database(metadata_url: str) -> Iterator[Database]:
    opened = Database(metadata_url)
    yield opened
    opened.close()


def catalog(*names: str) -> Catalog:
    entities = tuple(Entity(name=name, join_key=name, dtype=ValueType.STRING) for name in names)
    return Catalog(project="flights", entities=entities)


def test_processes_that_start_at_once_make_the_tables_once(metadata_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, metadata_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [said.strip() for said, _ in answers] == ["0"] * 3, [error for _, error in answers]
    engine = create_engine(metadata_url)
    assert {"catalogs", "runs", "reports", "deployments"} <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_projects_opened_at_once_in_one_process_each_get_their_tables(tmp_path: Path) -> None:
    """Alembic keeps the database it migrates in globals of its module, which threads would take from each other."""
    together = threading.Barrier(4, timeout=PATIENCE)

    def newest(number: int) -> int:
        opened = Database(f"sqlite:///{tmp_path}/{number}.db")
        together.wait(PATIENCE)
        version = CatalogRepository(opened, "flights").newest_version()
        opened.close()
        return version

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(newest, range(4))) == [0] * 4


def made_by_an_earlier_release(url: str, version: str) -> None:
    """The tables of that version, with a run of each state: the newest end is of the run that finished first."""
    columns = "project, view, interval_start, interval_end, attempt, kind, state, cutoff, claimed_by, lease_until, "
    columns += "started_at, finished_at, rows_read, rows_written, rows_skipped, catalog_digest"
    rows = [
        (T0 + HOUR, T0 + 2 * HOUR, "succeeded", T0 + HOUR, T0 + 3 * HOUR),
        (T0, T0 + HOUR, "succeeded", T0 + HOUR, T0 + 4 * HOUR),
        (T0 + 2 * HOUR, T0 + 3 * HOUR, "failed", None, T0 + 5 * HOUR),
        (T0 + 3 * HOUR, T0 + 4 * HOUR, "claimed", None, None),
    ]
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent / "alembic_scripts"))
    engine = create_engine(url)
    with migrations.ALEMBIC, engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        for start, end, state, cutoff, finished in rows:
            times = [None if at is None else to_micros(at) for at in (start, end, cutoff, end, finished)]
            connection.execute(
                text(
                    f"INSERT INTO runs ({columns}) VALUES ('flights', 'weather', :start, :end, 1, 'manual', :state, "  # noqa: S608
                    ":cutoff, 'old', :at, :at, :finished, 7, 7, 0, '')"
                ),
                dict(zip(("start", "end", "cutoff", "at", "finished"), times, strict=True)) | {"state": state},
            )
    engine.dispose()


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_a_ledger_of_an_earlier_release_is_kept_and_goes_on(metadata_url: str, version: str) -> None:
    made_by_an_earlier_release(metadata_url, version)
    opened = Database(metadata_url)
    ledger = Ledger(opened, "flights")
    assert [(run.state, run.claimed_by, run.takeovers, run.rows_read) for run in ledger.runs("weather")] == [
        (state, "old", 0, 7) for state in ("claimed", "failed", "succeeded", "succeeded")
    ]
    assert (ledger.last_end("weather"), ledger.last_cutoff("weather")) == (T0 + 2 * HOUR, T0 + HOUR)
    assert [list(column) for column in ledger.cutoffs("weather")] == [
        [to_micros(T0 + 3 * HOUR), to_micros(T0 + 4 * HOUR)],
        [to_micros(T0 + HOUR)] * 2,
    ]
    claim = ledger.claim("weather", start=T0 + 3 * HOUR, end=T0 + 4 * HOUR, at=T0 + 6 * HOUR, by="new")
    assert claim is not None
    assert [(run.claimed_by, run.takeovers) for run in ledger.runs(limit=1)] == [("new", 1)]
    ledger.succeed(claim, cutoff=claim.end, rows_read=1, rows_written=1, rows_skipped=0, at=T0 + 6 * HOUR)
    assert ledger.last_end("weather") == T0 + 4 * HOUR
    opened.close()


def test_the_tables_that_migrations_make_are_those_that_are_declared(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_catalogs_count_up_and_the_same_again_keeps_its_version(database: Database) -> None:
    catalogs = CatalogRepository(database, "flights")
    assert catalogs.newest() is None
    assert [catalogs.add(catalog(*names), at=T0).version for names in ("a", "ab", "ab")] == [1, 2, 2]
    newest = catalogs.newest()
    assert newest is not None
    assert (newest.version, newest.catalog) == (2, catalog("a", "b"))
    assert CatalogRepository(database, "my_flights").newest() is None


def test_of_definitions_put_in_force_at_once_one_wins_and_the_others_are_told(database: Database) -> None:
    catalogs, together = CatalogRepository(database, "flights"), threading.Barrier(4, timeout=PATIENCE)
    catalogs.newest_version()
    added: list[int] = []
    refused: list[ConflictError] = []

    def add(name: str) -> None:
        together.wait()
        try:
            added.append(catalogs.add(catalog(name), at=T0).version)
        except ConflictError as error:
            refused.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    wait_for_end_of(*threads)
    assert len(added) + len(refused) == 4
    assert sorted(added) == list(range(1, len(added) + 1))
    assert catalogs.newest_version() == len(added)


def test_reports_come_back_as_they_were_newest_first(database: Database) -> None:
    reports = ReportRepository(database, "flights")
    reports.add("drift", "late", {"psi": float("nan"), "what": "Größe 🛫", "at": T0}, at=T0)
    reports.add("drift", "late", {"psi": 0.25}, at=T0 + HOUR)
    assert [(report.made_at, report.body) for report in reports.list("drift", "late")] == [
        (T0 + HOUR, {"psi": 0.25}),
        (T0, {"psi": None, "what": "Größe 🛫", "at": T0.isoformat()}),
    ]


def test_what_was_said_last_of_a_task_counts_even_if_the_clock_was_set_back_since(database: Database) -> None:
    switches = Switches(database, "flights")
    switches.pause("weather", reason="moving", at=T0 + 9_000 * HOUR)
    switches.resume("weather", at=T0)
    assert switches.paused() == {}
    switches.pause("weather", at=T0 - HOUR)
    assert list(switches.paused()) == ["weather"]


def test_a_lock_that_is_held_for_too_long_is_told_and_not_waited_for_for_ever(
    postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.metadata import database as module

    monkeypatch.setattr(module, "_PATIENCE", 1)
    url = postgres.fresh_database()
    opened = Database(url)
    reports = ReportRepository(opened, "flights")
    reports.add("drift", "late", {}, at=T0)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("lock table reports in exclusive mode"))
        with pytest.raises(UnavailableError, match="lock timeout"):
            reports.add("drift", "late", {}, at=T0)
    reports.add("drift", "late", {}, at=T0)
    engine.dispose()
    opened.close()


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/tidemill", UnavailableError, "127.0.0.1/tidemill does not answer"),
        ("postgresql+nothing://me:hunter2@host/tidemill", ConfigurationError, r"tidemill\[postgres\]"),
        ("my database", ConfigurationError, "is not a database's URL"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(
    postgres: Any, url: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        CatalogRepository(Database(url), "flights").newest()
    assert "hunter2" not in str(caught.value)


def test_a_database_that_a_newer_version_has_migrated_is_left_alone_and_said_so(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9000'")
    database.close()
    with pytest.raises(ConfigurationError, match="of version 9000, ours of"):
        CatalogRepository(database, "flights").newest_version()


@pytest.mark.parametrize("url", ["postgresql://tide:hush@hush@127.0.0.1/x", "postgresql+psycopg://t:a@hush@h/x"])
def test_a_password_with_an_at_sign_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="%40") as refused:
        CatalogRepository(Database(url), "flights").newest_version()
    assert "hush" not in str(refused.value)


def test_a_file_that_is_damaged_or_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "metadata.db"
    file.write_bytes(b"this was a database once" * 100)
    with pytest.raises(UnavailableError, match="cannot be read: file is not a database"):
        CatalogRepository(Database(f"sqlite:///{file}"), "flights").newest_version()
    with pytest.raises(UnavailableError, match="cannot be made: Not a directory"):
        CatalogRepository(Database(f"sqlite:///{file}/below/metadata.db"), "flights").newest_version()
