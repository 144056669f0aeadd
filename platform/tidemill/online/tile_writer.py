"""Writing events into tiles: batches of up to a thousand, each one step in Redis.

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
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.errors import ConflictError
from tidemill.online.keys import key_layout
from tidemill.online.resp import RespClient, Script
from tidemill.online.tile_build import AggregatedColumn, Events, build_records
from tidemill.online.tile_layout import event_prefix, layouts_of, rebuild_lock

PUSH = Script(Path(__file__).with_name("tile_push.lua").read_text())
_EVENTS_AT_ONCE = 1_000
_TILES_AT_ONCE = 2_000
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
    def _aggregated(self) -> dict[str, AggregatedColumn]:
        return {}

    def column(self, name: str) -> AggregatedColumn:
        """A column's values; views share what has been made of them."""
        if name not in self._aggregated:
            self._aggregated[name] = AggregatedColumn(self.columns[name])
        return self._aggregated[name]


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
            writers = [writer for writer in self._writers if writer.view.event_id == event_id]
            delivery = _Delivery(
                views=[writer.arrived(arrivals, at) for writer in writers],
                names=None if event_id is None else event_names(arrivals.columns[event_id]),
                prefix=b"" if event_id is None else event_prefix(self._catalog.project, self._stream, event_id),
                at=at,
            )
            within = _repeats_within(arrivals, delivery.names)
            repeated |= within
            rows = np.flatnonzero(~within)
            for start in range(0, len(rows), _EVENTS_AT_ONCE):
                repeated[self._write_batch(delivery, rows[start : start + _EVENTS_AT_ONCE])] = True
        return repeated

    def _write_batch(self, delivery: _Delivery, rows: np.ndarray) -> list[int]:
        """Write some rows in one step, or in several where they touch many tiles; returns which were written before."""
        deltas = [delta for view in delivery.views for delta in view.deltas(rows)]
        if len(rows) > 1 and sum(len(delta.keys) for delta in deltas) > _TILES_AT_ONCE:
            middle = len(rows) // 2
            return self._write_batch(delivery, rows[:middle]) + self._write_batch(delivery, rows[middle:])
        named = delivery.named(rows)
        seen = {named[position - 1] for position in self._send(delivery, deltas, named)}
        if not seen:
            return []
        rest = np.array([row for row in rows.tolist() if row not in seen], dtype=np.int64)
        return [*seen, *(self._write_batch(delivery, rest) if len(rest) else [])]

    def _send(self, delivery: _Delivery, deltas: Sequence[_Delta], named: Sequence[int]) -> list[int]:
        """Positions (from 1) of the names that were seen before; empty when everything is written."""
        views = [view.writer for view in delivery.views]
        locks = [rebuild_lock(self._catalog.project, writer.view.name).encode() for writer in views]
        remember = max(expiry for writer in views for expiry in writer.expiries)
        keys = [*locks, *delivery.ids(named), *(key for delta in deltas for key in delta.keys)]
        arguments: list[bytes | int] = [len(locks), len(named), remember, delivery.at]
        for delta in deltas:
            arguments += delta.arguments
        answer = PUSH.run(self._client, keys, arguments, retry=bool(named))
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


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """The events of one call as the views that name them alike take them; rows are numbered as they arrived."""

    views: Sequence[_ArrivedAtView]
    names: list[bytes | None] | None
    prefix: bytes
    at: int

    def named(self, rows: np.ndarray) -> list[int]:
        names = self.names
        return [] if names is None else [row for row in rows.tolist() if names[row] is not None]

    def ids(self, named: Sequence[int]) -> list[bytes]:
        names = self.names or []
        return [self.prefix + (names[row] or b"") for row in named]


class _ViewWriter:
    """What is known of a view before any event arrives."""

    def __init__(self, catalog: Catalog, view: View, forever: bool) -> None:
        self.view = view
        self.layouts = layouts_of(view)
        self.expiries = [layout.expiry(forever=forever) for layout in self.layouts]
        self.prefixes = [layout.prefix(catalog.project) for layout in self.layouts]
        self._keys = key_layout(catalog, view)

    def arrived(self, arrivals: Arrivals, at: int) -> _ArrivedAtView:
        code, entities = self._coded(arrivals.columns)
        counts_from = np.maximum(arrivals.event, arrivals.known)
        events = Events(
            code=code,
            event=arrivals.event,
            known=arrivals.known,
            since=np.where(counts_from <= at, 0, counts_from),
            columns={item.column: arrivals.column(item.column) for item in self.view.aggregations if item.column},
        )
        return _ArrivedAtView(self, events, entities, at)

    def _coded(self, columns: pl.DataFrame) -> tuple[np.ndarray, list[bytes | None]]:
        """The code of each row's entity, and the entities' keys: None where a join key is null."""
        if not self.view.join_keys:
            return np.zeros(len(columns), dtype=np.int64), list(self._keys.encode_rows(1))
        places: dict[tuple[Any, ...], int] = {}
        rows = zip(*(columns[name].to_list() for name in self.view.join_keys), strict=True)
        code = np.array([places.setdefault(row, len(places)) for row in rows], dtype=np.int64)
        return code, self._keys.encode_columns(list(zip(*places, strict=True))) if places else []


class _ArrivedAtView:
    """Events that have arrived, and the entities of one view that they are about."""

    def __init__(self, writer: _ViewWriter, events: Events, entities: list[bytes | None], at: int) -> None:
        self.writer, self._events, self._entities, self._at = writer, events, entities, at
        self._nobody = np.array([entity is None for entity in entities], dtype=bool)

    def deltas(self, rows: np.ndarray) -> Iterator[_Delta]:
        """The records that some of the events make."""
        if self._nobody.any():
            rows = rows[~self._nobody[self._events.code[rows]]]
        events = self._events if len(rows) == len(self._events) else self._events.take(rows)
        writer, entities = self.writer, self._entities
        for layout, prefix, expiry in zip(writer.layouts, writer.prefixes, writer.expiries, strict=True):
            oldest = layout.oldest_tile(self._at)
            records = build_records(layout, events.since_tile(oldest, layout.hop))
            sizes = [len(records.code), layout.words, layout.ops.encode(), expiry, oldest, layout.capacity]
            keys = [prefix + (entities[number] or b"") for number in records.code.tolist()]
            yield _Delta(keys=keys, arguments=[*sizes, records.words.tobytes()])


def event_names(ids: pl.Series) -> list[bytes | None]:
    """Event ids as parts of keys: as they are where they are short, else their digest."""
    texts = ids.cast(pl.String).to_list()
    return [None if text is None else _short(text.encode()) for text in texts]


def _short(name: bytes) -> bytes:
    if len(name) <= _LONGEST_PLAIN_ID:
        return b"=" + name
    return b"#" + blake2b(name, digest_size=16).hexdigest().encode()


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
