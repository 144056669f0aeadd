"""A frame becomes a Parquet file, all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from tidemill.errors import SourceError


def land(frame: pl.DataFrame, file: Path) -> None:
    """Write a frame beside its file and rename it: readers see all of it or nothing of it.

    Raises SourceError where other files of the folder have other columns or types.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _check_shape(frame, file)
    # A dot hides the unfinished file from every reader of the folder.
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        frame.write_parquet(unfinished, compression="zstd", statistics=True)
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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
