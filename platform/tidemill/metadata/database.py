"""Opening the metadata database: SQLite in the project's state folder, or any URL SQLAlchemy knows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from tidemill.errors import UnavailableError
from tidemill.metadata.migrations import migrate


class Database:
    """Sessions on the metadata database. Opened lazily: the first session creates or migrates the tables."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None
        self._opening = threading.Lock()

    @classmethod
    def embedded(cls, folder: Path) -> Database:
        return cls(f"sqlite:///{folder / 'metadata.db'}")

    @property
    def engine(self) -> Engine:
        with self._opening:
            if self._engine is None:
                self._engine = _open(self._url)
            return self._engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for queries; whatever it changes is forgotten when it closes."""
        with _explained(self._url), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back if anything was raised."""
        with _explained(self._url), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        where = url.split("@")[-1]  # never the password
        raise UnavailableError(
            f"The metadata database at {where} does not answer: {error.orig}.",
            hint="Check that it runs and that no other process holds it locked; the work can be started again.",
        ) from error


def _open(url: str) -> Engine:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        engine = create_engine(url, pool_pre_ping=True)
    migrate(engine)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers do not wait for the writer (WAL), and a crash of the process loses nothing that was committed."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
