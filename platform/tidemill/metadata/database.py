"""Opening the metadata database: SQLite in the project's state folder, or any URL SQLAlchemy knows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from tidemill.errors import ConfigurationError, UnavailableError
from tidemill.metadata.database_url import parsed
from tidemill.metadata.migrations import migrate

_PATIENCE = 30  # seconds to wait for a lock that another process holds
_CONNECT = 10  # seconds to wait for a server to answer at all
_POSTGRES = {
    "connect_timeout": _CONNECT,
    "client_encoding": "utf8",
    # A machine that is gone without a word: the system alone would ask it for two hours whether it is there.
    "keepalives_idle": _PATIENCE,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 2 * _PATIENCE * 1_000,  # milliseconds
}
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


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
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise _away(url, error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _away(url, error) from error
        if getattr(error.orig, "sqlite_errorcode", None) in _DAMAGED:
            raise _damaged(url, error) from error
        raise


def _away(url: str, error: Exception) -> UnavailableError:
    cause = str(getattr(error, "orig", error)).strip().rstrip(".")
    if "full" in cause or "No space left" in cause or "disk I/O" in cause:
        hint = "Make room on its disk; nothing was half written, and the work can be started again."
    else:
        hint = "Check that it runs and that no other process holds it locked; the work can be started again."
    return UnavailableError(f"The metadata database at {_shown(url)} does not answer: {cause}.", hint=hint)


def _damaged(url: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"The metadata database {_shown(url)} cannot be read: {getattr(error, 'orig', error)}.",
        hint="Bring a copy of it back; or move it away, and `tidemill apply` and `materialize --again` begin anew.",
    )


def _shown(url: str) -> str:
    """Where it is, and never the password."""
    found = make_url(url)
    return f"{found.host or found.query.get('host', '')}/{found.database or ''}"


def _open(url: str) -> Engine:
    found = _understood(url)
    if found.get_backend_name() == "sqlite":
        if found.database not in (None, "", ":memory:"):
            _make_folder(Path(str(found.database)).parent)
        engine = create_engine(found, connect_args={"timeout": _PATIENCE, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        engine = _engine_of_server(found)
    try:
        migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"The folder {folder} of the metadata database cannot be made: {error.strerror}.",
            hint="Give write access to it, or set `state` or `metadata_url` to somewhere else.",
        ) from error


def _understood(url: str) -> URL:
    """The URL, with the driver that we install where it names none. Raises ConfigurationError."""
    found = parsed(url, name="`metadata_url`")
    return found.set(drivername="postgresql+psycopg") if found.drivername in ("postgresql", "postgres") else found


def _engine_of_server(url: URL) -> Engine:
    is_postgres = url.get_backend_name() == "postgresql"
    options: dict[str, Any] = _POSTGRES if is_postgres else {}
    options = {name: value for name, value in options.items() if name not in url.query}
    try:
        engine = create_engine(url, pool_pre_ping=True, connect_args=options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigurationError(
            f"`metadata_url` needs a driver that is not installed: {error}.",
            hint="For PostgreSQL install tidemill[postgres] and write postgresql+psycopg://...",
        ) from None
    if is_postgres:
        event.listen(engine, "connect", _prepare_postgres)
    return engine


def _prepare_postgres(connection: Any, _record: Any) -> None:
    """Who waits for a lock for too long is told so, as on SQLite, and does not wait for ever."""
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{_PATIENCE}s'")
    cursor.close()
    connection.commit()  # a rollback would take the setting back


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers do not wait for the writer (WAL), and a crash of the process loses nothing that was committed."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
