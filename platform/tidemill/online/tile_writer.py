"""Writing events into tiles: batches of a few hundred, each one step in Redis.

A batch is aggregated here, so that Redis merges one record for each tile and entity and not one for each event. The
script takes the batch's event ids and its records together: where it has seen an id before it changes nothing and says
which, and the batch is sent again without those events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.errors import ConflictError
from tidemill.online.keys import key_layout
from tidemill.online.resp import RespClient, Script
from tidemill.online.tile_build import AggregatedColumn, Events, build_records
from tidemill.online.tile_layout import event_prefix, layouts_of, rebuild_lock

PUSH = Script(Path(__file__).with_name("tile_push.lua").read_text())
_EVENTS_AT_ONCE = 256
_LONGEST_PLAIN_ID = 40
_WRITTEN, _SEEN, _LOCKED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Events as they arrived, checked and typed: times in int64 microseconds, columns as long as they are."""

    event: np.ndarray
    known: np.ndarray
    columns: pl.DataFrame

    def __len__(self) -> int:
        return len(self.event)

    @cached_property
    def aggregated(self) -> dict[str, AggregatedColumn]:
        """Columns that views have asked for so far."""
        return {}

    def column(self, name: str) -> AggregatedColumn:
        if name not in self.aggregated:
            self.aggregated[name] = AggregatedColumn(self.columns[name])
        return self.aggregated[name]

    def take(self, rows: np.ndarray) -> Arrivals:
        """Some of the rows, ascending and each once."""
        if len(rows) == len(self):
            return self
        return Arrivals(event=self.event[rows], known=self.known[rows], columns=self.columns[rows])


class TileWriter:
    """Writes the events of one stream into the tiles of its pushed windowed views."""

    def __init__(self, client: RespClient, catalog: Catalog, stream: str, *, forever: bool = False) -> None:
        self._client, self._catalog, self._stream = client, catalog, stream
        self.views = tuple(view for view in catalog.views_of_stream(stream) if view.is_windowed and view.is_pushed)
        self._writers = [_ViewWriter(catalog, view, forever) for view in self.views]

    def write(self, arrivals: Arrivals, *, at: int) -> np.ndarray:
        """Count every event that was not counted before; returns which rows were repeats.

        Views that name events by the same column (`event_id`) are written together. Events without an id cannot be told
        from their repeats.

        Raises ConflictError while a view's tiles are rebuilt, OnlineStoreUnavailableError. Batches written before
        that stay; sending the same events again counts none of them twice.
        """
        repeated = np.zeros(len(arrivals), dtype=bool)
        for event_id in dict.fromkeys(view.event_id for view in self.views):
            views = [writer for writer in self._writers if writer.view.event_id == event_id]
            names = _names(arrivals.columns, event_id)
            keys = [view.entity_keys(arrivals.columns) for view in views]
            for rows in _batches(arrivals, names):
                repeated[self._write_batch(views, keys, arrivals, names, rows, event_id, at)] = True
            repeated |= _repeats_within(arrivals, names)
        return repeated

    def _write_batch(
        self,
        views: Sequence[_ViewWriter],
        keys: Sequence[list[bytes | None]],
        arrivals: Arrivals,
        names: list[bytes | None] | None,
        rows: np.ndarray,
        event_id: str | None,
        at: int,
    ) -> np.ndarray:
        """Write some rows in one step; returns those that had been written before."""
        prefix = b"" if event_id is None else event_prefix(self._catalog.project, self._stream, event_id)
        seen: list[int] = []
        while len(rows):
            named = [] if names is None else [row for row in rows.tolist() if names[row] is not None]
            ids = [prefix + names[row] for row in named] if names is not None else []  # type: ignore[operator]
            again = self._send(views, keys, arrivals, rows, ids, at)
            if not again:
                break
            fresh = {named[position - 1] for position in again}
            seen += fresh
            rows = np.array([row for row in rows.tolist() if row not in fresh], dtype=np.int64)
        return np.array(seen, dtype=np.int64)

    def _send(
        self,
        views: Sequence[_ViewWriter],
        keys: Sequence[list[bytes | None]],
        arrivals: Arrivals,
        rows: np.ndarray,
        ids: list[bytes],
        at: int,
    ) -> list[int]:
        """Positions (from 1) of the ids that were seen before; empty when everything is written."""
        locks = [rebuild_lock(self._catalog.project, view.view.name).encode() for view in views]
        remember = max(expiry for view in views for expiry in view.expiries)
        tiles: list[bytes] = []
        arguments: list[bytes | int] = [len(locks), len(ids), remember, at]
        for view, its_keys in zip(views, keys, strict=True):
            for part in view.deltas(arrivals, its_keys, rows, at):
                tiles += part.keys
                arguments += part.arguments
        answer = PUSH.run(self._client, [*locks, *ids, *tiles], arguments, retry=bool(ids))
        if answer[0] == _LOCKED:
            raise ConflictError(
                f"The tiles of view {views[answer[1] - 1].view.name!r} are being rebuilt.",
                hint="Push the same events again when that has ended; what was counted already counts once.",
            )
        return answer[1] if answer[0] == _SEEN else []


@dataclass(frozen=True, kw_only=True)
class _Delta:
    """Records for the tiles of one layout, as the script takes them."""

    keys: list[bytes]
    arguments: list[bytes | int]


class _ViewWriter:
    """Turns events into records of one view."""

    def __init__(self, catalog: Catalog, view: View, forever: bool) -> None:
        self.view = view
        self.layouts = layouts_of(view)
        self.expiries = [layout.expiry(forever=forever) for layout in self.layouts]
        self._prefixes = [layout.prefix(catalog.project) for layout in self.layouts]
        self._keys = key_layout(catalog, view)

    def entity_keys(self, columns: pl.DataFrame) -> list[bytes | None]:
        """Each row's entity key, None where a join key is null."""
        if not self.view.join_keys:
            return list(self._keys.encode_rows(len(columns)))
        return self._keys.encode_columns([columns[name].to_list() for name in self.view.join_keys])

    def deltas(self, arrivals: Arrivals, keys: list[bytes | None], rows: np.ndarray, at: int) -> Iterator[_Delta]:
        places: dict[bytes, int] = {}
        mine = [row for row in rows.tolist() if keys[row] is not None]
        code = np.array([places.setdefault(keys[row], len(places)) for row in mine], dtype=np.int64)  # type: ignore[arg-type]
        entities = list(places)
        events = events_of(self.view, arrivals.take(np.array(mine, dtype=np.int64)), code, at)
        for layout, prefix, expiry in zip(self.layouts, self._prefixes, self.expiries, strict=True):
            oldest = layout.oldest_tile(at)
            records = build_records(layout, events.since_tile(oldest, layout.hop))
            yield _Delta(
                keys=[prefix + entities[number] for number in records.code.tolist()],
                arguments=[
                    len(records.code),
                    layout.words,
                    layout.ops.encode(),
                    expiry,
                    oldest,
                    layout.capacity,
                    records.words.tobytes(),
                ],
            )


def events_of(view: View, arrivals: Arrivals, code: np.ndarray, at: int) -> Events:
    """Events of one view as the record builder takes them."""
    counts_from = np.maximum(arrivals.event, arrivals.known)
    columns = {item.column: arrivals.column(item.column) for item in view.aggregations if item.column}
    return Events(
        code=code,
        event=arrivals.event,
        known=arrivals.known,
        since=np.where(counts_from <= at, 0, counts_from),
        columns=columns,
    )


def event_names(ids: pl.Series) -> list[bytes | None]:
    """Event ids as parts of keys: as they are where they are short, else their digest."""
    texts = ids.cast(pl.String).to_list()
    return [None if text is None else _short(text.encode()) for text in texts]


def _short(name: bytes) -> bytes:
    if len(name) <= _LONGEST_PLAIN_ID:
        return b"=" + name
    return b"#" + blake2b(name, digest_size=16).hexdigest().encode()


def _names(columns: pl.DataFrame, event_id: str | None) -> list[bytes | None] | None:
    return None if event_id is None else event_names(columns[event_id])


def _batches(arrivals: Arrivals, names: list[bytes | None] | None) -> Iterator[np.ndarray]:
    """Rows some hundred at a time, in order of arrival, each event once."""
    rows = np.flatnonzero(~_repeats_within(arrivals, names))
    for start in range(0, len(rows), _EVENTS_AT_ONCE):
        yield rows[start : start + _EVENTS_AT_ONCE]


def _repeats_within(arrivals: Arrivals, names: list[bytes | None] | None) -> np.ndarray:
    """Rows whose event was known earlier by another row of the same frame, or is the same row further on."""
    if names is None or len(set(names)) == len(names):
        return np.zeros(len(arrivals), dtype=bool)
    repeated = np.ones(len(arrivals), dtype=bool)
    taken: set[bytes] = set()
    for row in np.argsort(arrivals.known, kind="stable").tolist():
        name = names[row]
        if name is None or name not in taken:
            repeated[row] = False
            if name is not None:
                taken.add(name)
    return repeated
