"""Pushing events: checked as a whole first, then written to history, to the online store, or to both.

To both means history first: a crash in between leaves events that training knows and serving does not yet, and the same
call again completes them. Written twice they count once, where the views name an event id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Catalog, Source
from tidemill.errors import InputError, NotDefinedError
from tidemill.online.push_few import FewRows, FewRowsCheck
from tidemill.online.push_rows import EVENT, KNOWN, Batch, RejectedRow, check_rows, instants_of, rows_of, time_fields
from tidemill.online.push_together import PushesTogether, Waiting, hand_out, joined
from tidemill.online.tile_writer import Arrivals, TileWriter

if TYPE_CHECKING:
    from tidemill.online.store import OnlineStore
    from tidemill.project import Project

TARGETS = ("online", "offline", "both")


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What became of a push: `accepted` rows count now; `duplicates` counted before; `ignored` columns are not defined.

    `path` is the file added to history, where that was asked for.
    """

    accepted: int
    duplicates: int
    rejected: tuple[RejectedRow, ...] = ()
    ignored: tuple[str, ...] = ()
    path: Path | None = None


def push(project: Project, source: str, frame: Any, *, to: str = "online", at: datetime) -> PushResult:
    """Write events of a stream to the online store, to history, or to both.

    Args:
        project: an open project.
        source: a stream's name, or that of a batch source behind one stream.
        frame: rows as a polars, pandas or Arrow frame or a list of dicts: the stream's join keys, event time, and the
            columns its views read. A missing known time is `at`.
        to: `online`, `offline` or `both`.
        at: the present. Rows further ahead of it than the project's `push_horizon` are rejected, each with its reason;
            rows within it count from their own time on.

    Raises NotDefinedError for an unknown stream, InputError where a column is missing or cannot be read as its type
    (nothing is written then), ConflictError while tiles are rebuilt, OnlineStoreUnavailableError.
    """
    if to not in TARGETS:
        raise InputError(f"Cannot push to {to!r}.", hint=f"Expected one of: {', '.join(TARGETS)}.")
    stream = find_stream(project.catalog, source)
    if to == "online":
        return write_events(project.online, stream, frame, at)
    batch = check_rows(project.catalog, stream, rows_of(frame), at, project.settings.push_horizon)
    path = None
    if to != "online":
        path = _append(project, stream, batch)
    if to == "offline":
        return PushResult(
            accepted=len(batch.kept), duplicates=0, rejected=batch.rejected, ignored=batch.ignored, path=path
        )
    return replace(_write(project.online, stream, batch, at), path=path)


def write_events(store: OnlineStore, stream: str, frame: Any, at: datetime) -> PushResult:
    """Write events to the online store: plain pushed views and windows. See `push`."""
    writer = writer_of(store, stream)
    rows = writer.few_rows(frame, at)
    if rows is not None:
        return few_result(rows, writer.together.write(rows, to_micros(at)))
    batch = check_rows(store.catalog, stream, rows_of(frame), at, store.settings.push_horizon)
    return _write(store, stream, batch, at)


def find_stream(catalog: Catalog, name: str) -> str:
    """The stream of this name, or the only one over the batch source of this name."""
    known = {stream.name for stream in catalog.streams}
    if name in known:
        return name
    behind = [stream.name for stream in catalog.streams if stream.source == name]
    if len(behind) == 1:
        return behind[0]
    if behind:
        raise InputError(f"Source {name!r} has several streams.", hint=f"Name one of: {', '.join(sorted(behind))}.")
    if any(source.name == name for source in catalog.sources):
        raise InputError(
            f"Source {name!r} is of files only; events are pushed to a PushSource.",
            hint=f"Declare PushSource(name=..., batch_source={name}) and make it the source of the view.",
        )
    raise NotDefinedError("stream source", name, known | {stream.source for stream in catalog.streams})


def _write(store: OnlineStore, stream: str, batch: Batch, at: datetime) -> PushResult:
    kept = batch.kept
    arrivals = Arrivals(event=instants_of(kept[EVENT]), known=instants_of(kept[KNOWN]), columns=kept)
    repeated = writer_of(store, stream).tiles.write(arrivals, at=to_micros(at))
    for view in store.catalog.views_of_stream(stream):
        if not view.is_windowed and view.is_pushed:
            names = [*view.join_keys, *(feature.name for feature in view.features), EVENT, KNOWN]
            store.write(view.name, kept.select(names), learned=at)
    duplicates = int(repeated.sum())
    return PushResult(
        accepted=len(kept) - duplicates, duplicates=duplicates, rejected=batch.rejected, ignored=batch.ignored
    )


def few_result(rows: FewRows, duplicates: int) -> PushResult:
    """What became of few events, of which so many counted before."""
    return PushResult(accepted=len(rows) - duplicates, duplicates=duplicates, ignored=rows.ignored)


class StreamWriter:
    """What writes a stream's events, compiled once for each store; a push is mostly a few events."""

    def __init__(self, store: OnlineStore, stream: str) -> None:
        self.tiles = TileWriter(store.resp, store.catalog, stream, forever=store.keeps_forever)
        self.together = PushesTogether(self._write_few)
        self._few = FewRowsCheck.where_it_fits(store.catalog, stream)
        self._client, self._async_client = store.resp, store.async_writes

    def few_rows(self, frame: Any, at: datetime) -> FewRows | None:
        """Rows that can go the short way (see `push_few`), checked; None for all others."""
        return None if self._few is None else self._few.rows(frame, at)

    async def write_waiting(self, batch: Sequence[Waiting]) -> None:
        """Write few events of several callers in one step, from asyncio, and tell each what became of its own."""
        rows, at = joined(batch)
        steps = self.tiles.few_steps(rows, at=at)
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._async_client.run(step.script, step.command, retry=step.retry))
        except StopIteration as end:
            hand_out(batch, end.value)

    def _write_few(self, rows: FewRows, at: int) -> set[int]:
        steps = self.tiles.few_steps(rows, at=at)
        try:
            step = next(steps)
            while True:
                step = steps.send(step.script.send(self._client, step.command, retry=step.retry))
        except StopIteration as end:
            return end.value


def writer_of(store: OnlineStore, stream: str) -> StreamWriter:
    """The one of this store."""
    compiled = _WRITERS.get(store)
    if compiled is None:
        compiled = _WRITERS.setdefault(store, {})
    wanted = stream, store.keeps_forever
    found = compiled.get(wanted)
    return found if found is not None else compiled.setdefault(wanted, StreamWriter(store, stream))


_WRITERS: WeakKeyDictionary[OnlineStore, dict[tuple[str, bool], StreamWriter]] = WeakKeyDictionary()


def _append(project: Project, stream: str, batch: Batch) -> Path | None:
    """Add the rows to history under a name made from them, so that the same push again adds nothing."""
    if batch.given.is_empty():
        return None
    source = project.catalog.source(project.catalog.stream(stream).source)
    timestamp, known = time_fields(source)
    name = f"push-{_digest(batch.given)}"
    found = project.offline.find_appended(source.name, name)
    if found is not None:
        return found
    columns = [batch.kept[EVENT].alias(timestamp)]
    if known is not None:
        columns.append(batch.kept[KNOWN].alias(known))
    rows = batch.given.with_columns(columns)
    return project.offline.append(source.name, rows.select(_stored_columns(project, source, rows)), name=name)


def _stored_columns(project: Project, source: Source, rows: pl.DataFrame) -> list[str]:
    try:
        stored = project.offline.scan(source.name).collect_schema().names()
    except InputError:
        return rows.columns
    return [name for name in rows.columns if name in stored]


def _digest(frame: pl.DataFrame) -> str:
    digest = hashlib.sha256(repr(frame.schema).encode())
    maps = [name for name, dtype in frame.schema.items() if dtype == pl.Object]
    frame = frame.with_columns(pl.Series(name, [repr(value) for value in frame[name]], pl.String) for name in maps)
    digest.update(frame.write_ipc(None, compression="uncompressed").getvalue())
    return digest.hexdigest()[:24]


__all__ = [
    "PushResult",
    "RejectedRow",
    "StreamWriter",
    "few_result",
    "find_stream",
    "push",
    "write_events",
    "writer_of",
]
