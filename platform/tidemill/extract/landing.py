"""A frame becomes a Parquet file, all or nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil
import pyarrow.parquet as pq

from tidemill.errors import ConflictError, SourceError, UnavailableError

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
_UNFINISHED = re.compile(r"\..+\.parquet\.(?P<host>[\w-]+)\.(?P<process>\d+)")


def land(frame: pl.DataFrame, file: Path) -> None:
    """Write a frame beside its file and rename it: readers see all of it or nothing of it.

    Raises SourceError where other files of the folder have other columns or types, UnavailableError where the disk
    does not take it.
    """
    _check_shape(frame, file)
    write_atomically(frame, file)


def write_atomically(frame: pl.DataFrame, file: Path) -> None:
    """Write a Parquet file that, whenever this process or its machine dies, is there whole or not at all."""
    # A dot hides the unfinished file from every reader of the folder.
    unfinished = file.with_name(f".{file.name}.{_HOST}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as target:
            frame.write_parquet(target, compression="zstd", statistics=True)
            target.flush()
            os.fsync(target.fileno())
        unfinished.replace(file)
        _sync_folder(file.parent)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        # Polars reports a full disk as an error of its own.
        if isinstance(error, OSError) or "IO error" in str(error):
            raise UnavailableError(
                f"{file} could not be written: {error}.",
                hint="Make room or give access, and run the same command again; nothing was half written.",
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

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(
                f"Another process is {what} already.", hint="Wait for it to end; what it lands will not land again."
            ) from None
        yield


def _check_shape(frame: pl.DataFrame, file: Path) -> None:
    neighbour = next((other for other in file.parent.glob("*.parquet") if not other.name.startswith(".")), None)
    if neighbour is None:
        return
    there = pl.from_arrow(pq.read_schema(neighbour).empty_table())
    if isinstance(there, pl.DataFrame) and dict(there.schema) != dict(frame.schema):
        raise SourceError(
            f"{file.parent.name!r} holds {_described(there)}, but {_described(frame)} was to be added.",
            hint="Bring the extraction back to the old columns and types, or move the old files away.",
        )


def _described(frame: pl.DataFrame) -> str:
    return "(" + ", ".join(f"{name}: {dtype}" for name, dtype in sorted(frame.schema.items())) + ")"


def _sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only once the folder itself is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
