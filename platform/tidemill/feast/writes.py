"""Rows that Feast writes to offline sources: appended as new files, never by rewriting what is there."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from feast import FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource

from tidemill.errors import InputError
from tidemill.feast.files import replace_file
from tidemill.feast.nouns import source_noun
from tidemill.offline.append import append_rows
from tidemill.offline.listing import resolve

_writing = threading.Lock()
_shared: dict[tuple[str, str], set[str]] = {}


def append_to_source(root: Path, view: FeatureView, table: pa.Table) -> bool:
    """Append rows to the source behind a view; False where they are there already.

    Feast pushes the same rows once for every view of a push source. Of those only the first is written; the same rows
    for the same view again are a new push.
    """
    source = view.batch_source
    if not isinstance(source, FileSource):
        raise InputError(f"View {view.name!r} has no file to append to.", hint="Give it a FileSource.")
    frame = _without_index(table)
    with _writing:
        views = _shared.setdefault((str(root / source.path), _digest(frame)), set())
        if views and view.name not in views:
            views.add(view.name)
            return False
        append_rows(source_noun(source), root, frame)
        views.clear()
        views.add(view.name)
    return True


def append_log(root: Path, destination: FileLoggingDestination, logs: pa.Table | Path) -> None:
    """Append logged features below the destination's folder, split by its partition columns."""
    table = pads.dataset(logs).to_table() if isinstance(logs, Path) else logs
    place = resolve(destination.path, root)
    if "://" in place:
        raise InputError(f"Features cannot be logged to {place}.", hint="Name a folder of this machine.")
    frame = pl.DataFrame(pl.from_arrow(table))
    for folder, rows in _partitions(frame, destination.partition_by or []):
        part = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        _write_part(Path(place) / folder / f"{uuid.uuid4().hex}.parquet", part)


def _write_part(file: Path, part: pa.Table) -> None:
    replace_file(file, lambda unfinished: pq.write_table(part, unfinished))


def _partitions(frame: pl.DataFrame, names: Sequence[str]) -> list[tuple[str, pl.DataFrame]]:
    if not names:
        return [("", frame)]
    groups = frame.group_by(names, maintain_order=True)
    return [
        ("/".join(f"{name}={value}" for name, value in zip(names, values, strict=True)), rows.drop(names))
        for values, rows in groups
    ]


def _without_index(table: pa.Table) -> pl.DataFrame:
    """Feast makes the table from a pandas frame, whose index may come along as a column."""
    index = [name for name in table.column_names if name.startswith("__index_level_")]
    return pl.DataFrame(pl.from_arrow(table.drop_columns(index)))


def _digest(frame: pl.DataFrame) -> str:
    sink = pa.BufferOutputStream()
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()
