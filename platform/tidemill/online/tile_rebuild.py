"""Tiles from history (to begin with, or to repair), and their removal."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Catalog, View
from tidemill.definitions.windows import lower_bound
from tidemill.errors import ConflictError, DefinitionError
from tidemill.offline.window_events import EVENT, KNOWN, deliveries
from tidemill.online.courtesy import nothing_read
from tidemill.online.keys import key_layout
from tidemill.online.push_rows import time_fields
from tidemill.online.resp import ReplyStream, RespClient, pack_command
from tidemill.online.tile_build import AggregatedColumn, Events, Records, build_records
from tidemill.online.tile_layout import TileLayout, project_prefix, rebuild_lock, view_prefix
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_writer import event_names, remember_events

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore
    from tidemill.online.store import OnlineStore

_LOCK_SECONDS = 60
_COMMANDS_AT_ONCE = 2_000
_SCAN_COUNT = 2_000
_CODE = "__code"


@dataclass(frozen=True, kw_only=True)
class RebuildResult:
    """What a rebuild left: events counted, entities with tiles, tiles written, stale keys removed."""

    events: int
    entities: int
    tiles: int
    removed: int

    def __add__(self, other: RebuildResult) -> RebuildResult:
        return RebuildResult(
            events=self.events + other.events,
            entities=self.entities + other.entities,
            tiles=self.tiles + other.tiles,
            removed=self.removed + other.removed,
        )


def rebuild_tiles(store: OnlineStore, view: str, *, offline: OfflineStore, at: datetime) -> RebuildResult:
    """Make a pushed view's tiles what they would be had its whole history been pushed by `at`.

    Views of the same stream that name events by the same id are rebuilt with it: what counts as a repeat is the same
    for all of them. Pushes to them are refused while it runs (ConflictError); reads go on and see an entity's old tiles
    until its new ones are there. Killed at any point it can be started again a minute later.

    Raises DefinitionError for a view without tiles, ConflictError where another rebuild runs, SourceError,
    OnlineStoreUnavailableError.
    """
    found = store.catalog.view(view)
    if not (found.is_windowed and found.is_pushed):
        raise DefinitionError(
            f"View {view!r} has no tiles.", hint="Only windowed views that a stream keeps current do."
        )
    return _rebuild_together(store, _siblings(store.catalog, found), offline, to_micros(at))


def rebuild_stream(store: OnlineStore, stream: str, *, offline: OfflineStore, at: datetime) -> RebuildResult:
    """Rebuild the tiles of all pushed windowed views of a stream. See `rebuild_tiles`."""
    views = [view for view in store.catalog.views_of_stream(stream) if view.is_windowed and view.is_pushed]
    result = RebuildResult(events=0, entities=0, tiles=0, removed=0)
    for event_id in dict.fromkeys(view.event_id for view in views):
        together = [view for view in views if view.event_id == event_id]
        result += _rebuild_together(store, together, offline, to_micros(at))
    return result


def delete_tiles(store: OnlineStore, view: str) -> int:
    """Remove all tiles of a view, whatever its definition was when they were written. Returns how many keys."""
    return _delete(store.resp, view_prefix(store.project, view))


def delete_all_tiles(store: OnlineStore) -> int:
    """Remove everything that windows keep in Redis for the project: tiles and event ids. Returns how many keys."""
    return _delete(store.resp, project_prefix(store.project))


class _Locks:
    """Keep pushes and other rebuilds away from some views; they expire by themselves if their holder dies."""

    def __init__(self, client: RespClient, keys: Sequence[str]) -> None:
        self._client, self._keys, self._token = client, keys, secrets.token_hex(8).encode()
        self._held: list[str] = []

    def __enter__(self) -> _Locks:
        for key in self._keys:
            if self._client.call("SET", key, self._token, "NX", "EX", _LOCK_SECONDS) is None:
                self.__exit__()
                raise ConflictError("These tiles are being rebuilt already.", hint="Wait for that to end.")
            self._held.append(key)
        return self

    def renew(self) -> None:
        for key in self._held:
            if self._client.call("GET", key) != self._token:
                raise ConflictError("The rebuild stood still and lost its lock.", hint="Start it again.")
            self._client.call("EXPIRE", key, _LOCK_SECONDS)

    def __exit__(self, *_: object) -> None:
        for key in self._held:
            if self._client.call("GET", key) == self._token:
                self._client.call("DEL", key)


def _siblings(catalog: Catalog, view: View) -> list[View]:
    if view.event_id is None or view.stream is None:
        return [view]
    return [
        other
        for other in catalog.views_of_stream(view.stream)
        if other.is_windowed and other.is_pushed and other.event_id == view.event_id
    ]


def _rebuild_together(store: OnlineStore, views: Sequence[View], offline: OfflineStore, at: int) -> RebuildResult:
    result = RebuildResult(events=0, entities=0, tiles=0, removed=0)
    named: set[str] = set()
    with _Locks(store.resp, [rebuild_lock(store.project, view.name) for view in views]) as locks:
        for view in views:
            result += _rebuild(store, view, offline, at, locks, named)
    return result


def _rebuild(
    store: OnlineStore, view: View, offline: OfflineStore, at: int, locks: _Locks, named: set[str]
) -> RebuildResult:
    """Rebuild one view; `named` are the events whose ids have been remembered already, for a view before it."""
    log = TileLog.of(view)
    history = _history(store, log, offline, at)
    fresh = [name for name in history.names if name is not None and name not in named]
    if view.event_id and view.stream:
        remember_events(store, view.stream, view.event_id, fresh, at=at, between=locks.renew)
        named.update(fresh)
    hops: list[Records] = []
    for layout in log.layouts:
        locks.renew()
        hops.append(build_records(layout, history.on(layout, at)))
    expiry, prefix = log.expiry(forever=store.keeps_forever), log.prefix(store.project)
    codes = np.unique(np.concatenate([records.code for records in hops])).tolist()
    keys = [prefix + history.entities[code] for code in codes]
    blobs = map(log.joined, zip(*(_logs(records, codes) for records in hops), strict=True))
    with store.resp.stream(reads=nothing_read) as stream:
        locks.renew()
        sets = (pack_command("SET", key, blob, "EX", expiry) for key, blob in zip(keys, blobs, strict=True))
        _send(stream, sets, locks)
        stream.finish()
    locks.renew()
    tiles, written = sum(len(records.code) for records in hops), set(keys)
    removed = _delete(store.resp, view_prefix(store.project, view.name), keep=written)
    return RebuildResult(events=len(history.events), entities=len(history.entities), tiles=tiles, removed=removed)


@dataclass(frozen=True, kw_only=True)
class _Delivered:
    """The known events of a view's longest window, their names, and the entity keys their codes stand for."""

    events: Events
    names: list[str | None]
    entities: list[bytes]

    def on(self, layout: TileLayout, at: int) -> Events:
        """The events with the tiles of a layout, without those that no longer count."""
        tile = self.events.event // layout.hop
        events = replace(self.events, tile=tile)
        kept = np.flatnonzero(tile >= layout.oldest_tile(at))
        return events if len(kept) == len(events) else events.take(kept)


def _history(store: OnlineStore, log: TileLog, offline: OfflineStore, at: int) -> _Delivered:
    view = log.view
    source = store.catalog.source(view.source)
    earliest = min(lower_bound(at, layout.longest, layout.hop) for layout in log.layouts)
    columns = sorted({item.column for item in view.aggregations if item.column})
    frame = deliveries(view, offline.scan(source.name), columns, earliest, at, *time_fields(source))
    code, entities = _coded(store, view, frame)
    events = Events(
        code=code,
        tile=np.zeros(len(frame), dtype=np.int64),
        event=frame[EVENT].to_numpy(),
        known=frame[KNOWN].to_numpy(),
        since=np.zeros(len(frame), dtype=np.int64),
        columns={name: AggregatedColumn(frame[name]) for name in columns},
    )
    return _Delivered(
        events=events, names=event_names(frame[view.event_id]) if view.event_id else [], entities=entities
    )


def _coded(store: OnlineStore, view: View, frame: pl.DataFrame) -> tuple[np.ndarray, list[bytes]]:
    layout = key_layout(store.catalog, view)
    if not view.join_keys:
        return np.zeros(len(frame), dtype=np.int64), list(layout.encode_rows(1))
    names = list(view.join_keys)
    distinct = frame.select(names).unique().with_row_index(_CODE)
    coded = frame.select(names).join(distinct, on=names, how="left", maintain_order="left")[_CODE]
    keys = layout.encode_columns([distinct[name].to_list() for name in names])
    return coded.cast(pl.Int64).to_numpy(), [key for key in keys if key is not None]


def _logs(records: Records, codes: Sequence[int]) -> Iterator[bytes]:
    """The records of each of some entities, in order of code."""
    raw, size = records.words.tobytes(), records.words.shape[1] * records.words.itemsize
    starts = np.searchsorted(records.code, codes).tolist()
    stops = np.searchsorted(records.code, codes, side="right").tolist()
    for start, stop in zip(starts, stops, strict=True):
        yield raw[start * size : stop * size]


def _send(stream: ReplyStream, commands: Iterator[bytes], locks: _Locks) -> None:
    batch: list[bytes] = []
    for sent, command in enumerate(commands, start=1):
        batch.append(command)
        if len(batch) == _COMMANDS_AT_ONCE:
            stream.send(b"".join(batch), len(batch))
            batch = []
            if sent % (50 * _COMMANDS_AT_ONCE) == 0:
                locks.renew()
    if batch:
        stream.send(b"".join(batch), len(batch))


def _delete(client: RespClient, prefix: str, keep: set[bytes] | None = None) -> int:
    removed = 0
    pattern = "".join(f"\\{sign}" if sign in "*?[]\\^" else sign for sign in prefix) + "*"
    cursor: bytes | int = b"0"
    while True:
        cursor, keys = client.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
        stale = [key for key in keys if keep is None or key not in keep]
        if stale:
            removed += client.call("UNLINK", *stale)
        if cursor == b"0":
            return removed
