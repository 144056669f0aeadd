"""A frame becomes a Parquet file, all or nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import polars as pl
import psutil

from tidemill.errors import ConflictError, SourceError, UnavailableError

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
_UNFINISHED = re.compile(r"\..+\.parquet\.(?P<host>[\w-]+)\.(?P<process>\d+)")


def shape_of(folder: Path) -> dict[str, pl.DataType] | None:
    """The columns and types of what lies in a folder already, or None.

    A column that has no value in a file has no type there; then further files are looked at. Raises SourceError for a
    file that is no Parquet.
    """
    shape: dict[str, pl.DataType] | None = None
    for file in folder.glob("[!.]*.parquet"):
        shape = known_types(_schema(file), shape)
        if pl.Null not in shape.values():
            break
    return shape


def known_types(shape: dict[str, pl.DataType], before: dict[str, pl.DataType] | None) -> dict[str, pl.DataType]:
    """A shape in which columns that have no type have the one they had before."""
    return {name: (before or {}).get(name, dtype) if dtype == pl.Null else dtype for name, dtype in shape.items()}


def check_shape(frame: pl.DataFrame, there: dict[str, pl.DataType] | None, source: str) -> None:
    """Raise SourceError where a frame has other columns or types than what landed before.

    A column that never had a value may get one of any type.
    """
    found = dict(frame.schema)
    if there is not None and known_types(there, found) != known_types(found, there):
        raise SourceError(
            f"{source!r} holds {_described(there)}, but {_described(found)} was to be added.",
            hint="Bring the extraction back to the old columns and types, or move the old files away.",
        )


def _schema(file: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(file))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"{file} is no Parquet file that could be added to: {str(error).splitlines()[0]}.",
            hint="Move it away, or put a whole one in its place.",
        ) from error


def write_atomically(frame: pl.DataFrame, file: Path) -> None:
    """Write a frame beside its file and rename it: whenever process or machine dies, readers see all or nothing.

    Raises UnavailableError where the disk does not take it.
    """
    # A dot hides the unfinished file from every reader of the folder.
    unfinished = file.with_name(f".{file.name}.{_HOST}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as target:
            frame.write_parquet(target, compression="zstd", statistics=True)
            target.flush()
            # After a power cut there may be no file, and the interval is extracted again; but never an empty one.
            os.fsync(target.fileno())
        unfinished.replace(file)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        # Polars reports a full disk as an error of its own.
        if isinstance(error, OSError) or "IO error" in str(error):
            raise UnavailableError(
                f"{file} could not be written: {error}.",
                hint="Make room or give access, and run the same command again; nothing was half written.",
            ) from error
        if isinstance(error, pl.exceptions.PolarsError | pl.exceptions.PanicException):
            raise SourceError(
                f"{file} cannot be written as Parquet, of {_described(dict(frame.schema))}: {error}.",
                hint="Convert the column in the extraction.",
            ) from error
        raise


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that are gone left unfinished in a folder."""
    for file in folder.glob(".*.parquet.*"):
        match = _UNFINISHED.fullmatch(file.name)
        if match and match["host"] == _HOST and not psutil.pid_exists(int(match["process"])):
            file.unlink(missing_ok=True)


@contextmanager
def alone(file: Path, what: str) -> Iterator[None]:
    """Hold a lock file while working; the system releases it when the process dies. ConflictError if it is held."""
    import fcntl

    with _opened(file) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(
                f"Another process is {what} already.", hint="Wait for it to end; what it lands will not land again."
            ) from None
        yield


def _opened(file: Path) -> IO[str]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a+")
    except OSError as error:
        raise UnavailableError(f"{file} could not be opened: {error}.", hint="Make room or give access.") from error


def _described(shape: dict[str, pl.DataType]) -> str:
    return "(" + ", ".join(f"{name}: {dtype}" for name, dtype in sorted(shape.items())) + ")"
