"""Writing events into tiles: batches of up to a thousand, each one step in Redis.

A batch is aggregated here, so that Redis merges one record for each tile and entity and not one for each event. The
script takes the batch's event ids and its records together: where it has seen an id before it changes nothing and says
which, and the batch is sent again without those events.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.errors import ConflictError
from tidemill.online.push_few import FewRows, few_columns
from tidemill.online.resp import RespClient, Script
from tidemill.online.tile_build import AggregatedColumn, Events, Records, build_records
from tidemill.online.tile_delta import Delta, delta_of
from tidemill.online.tile_entities import Coded, Entities
from tidemill.online.tile_few import FewEvents
from tidemill.online.tile_layout import TileLayout, event_key, rebuild_lock
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_script import push_script

if TYPE_CHECKING:
    from tidemill.online.store import OnlineStore

_EVENTS_AT_ONCE = 1_000
_TILES_AT_ONCE = 2_000
_LONGEST_PLAIN_ID = 40
_SEEN, _LOCKED = 1, 2  # what the script answers first; 0 is that it has written
_NO_RECORDS = Records(code=np.zeros(0, dtype=np.int64), words=np.zeros((0, 0), dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Events as they arrived, checked and typed: times in int64 microseconds, columns as long as they are."""

    event: np.ndarray
    known: np.ndarray
    columns: pl.DataFrame

    def __len__(self) -> int:
        return len(self.event)

    @cached_property
    def values(self) -> Mapping[str, Sequence[Any]]:
        """Columns as plain values, each made once."""
        return _Values(self.columns)

    @cached_property
    def _aggregated(self) -> dict[str, AggregatedColumn]:
        return {}

    def column(self, name: str) -> AggregatedColumn:
        """A column's values; views share what has been made of them."""
        if name not in self._aggregated:
            self._aggregated[name] = AggregatedColumn(self.columns[name])
        return self._aggregated[name]


class _Values(dict[str, list[Any]]):
    def __init__(self, columns: pl.DataFrame) -> None:
        self._columns = columns

    def __missing__(self, name: str) -> list[Any]:
        found = self[name] = self._columns[name].to_list()
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class FewStep:
    """A call of a script, packed; `retry` says whether it may be sent again when nobody knows if it was received."""

    script: Script
    command: bytes
    retry: bool


FewSteps = Generator[FewStep, Any, set[int]]


class TileWriter:
    """Writes the events of one stream into the tiles of its pushed windowed views."""

    def __init__(self, client: RespClient, catalog: Catalog, stream: str, *, forever: bool = False) -> None:
        views = tile_views(catalog, stream)
        self._deliveries = [
            _Delivery(client, catalog, stream, [view for view in views if view.event_id == event_id], forever)
            for event_id in dict.fromkeys(view.event_id for view in views)
        ]

    def write(self, arrivals: Arrivals, *, at: int) -> np.ndarray:
        """Count every event that was not counted before; returns which rows were repeats.

        Views that name events by the same column (`event_id`) are written together. Events without an id cannot be told
        from their repeats.

        Raises ConflictError while a view's tiles are rebuilt, OnlineStoreUnavailableError. Batches written before
        that stay; sending the same events again counts none of them twice.
        """
        repeated = np.zeros(len(arrivals), dtype=bool)
        for delivery in self._deliveries:
            repeated |= delivery.write(arrivals, at)
        return repeated

    def few_steps(self, rows: FewRows, *, at: int) -> FewSteps:
        """The same for a few events, one value at a time: what is to be sent, for whoever sends it to answer with what
        Redis said; returns which rows were repeats. Raises ConflictError."""
        repeated: set[int] = set()
        for delivery in self._deliveries:
            repeated |= yield from delivery.few_steps(rows, at)
        return repeated


class _Delivery:
    """Some views of a stream that name events alike: what is known of them before any event arrives."""

    def __init__(self, client: RespClient, catalog: Catalog, stream: str, views: Sequence[View], forever: bool) -> None:
        self._client = client
        self._event_id = views[0].event_id
        self._ids = event_key(catalog.project, stream, self._event_id) if self._event_id else ""
        self._locks = [rebuild_lock(catalog.project, view.name) for view in views]
        self._remember = seconds_remembered(views, forever=forever)
        self._logs = [TileLog.of(view) for view in views]
        self._entities = [Entities(catalog, log.view, log.prefix(catalog.project)) for log in self._logs]
        names = few_columns(catalog, stream)
        self._id_place = names.index(self._event_id) if self._event_id else 0
        self._few = FewEvents(
            self._logs,
            self._entities,
            names,
            ids=self._ids,
            locks=self._locks,
            remember=self._remember,
            forever=forever,
        )
        self._groups = _groups(self._logs)
        self._script = push_script(self._logs, forever=forever)

    def write(self, arrivals: Arrivals, at: int) -> np.ndarray:
        names = event_names(arrivals.columns[self._event_id]) if self._event_id else None
        repeated = _repeats_within(arrivals, names)
        arrived = _Arrived(
            arrivals=arrivals,
            names=names,
            entities=[one.of(arrivals.values, len(arrivals)) for one in self._entities],
            at=at,
        )
        rows = np.flatnonzero(~repeated)
        for start in range(0, len(rows), _EVENTS_AT_ONCE):
            repeated[self._write_batch(arrived, rows[start : start + _EVENTS_AT_ONCE])] = True
        return repeated

    def _write_batch(self, arrived: _Arrived, rows: np.ndarray) -> list[int]:
        """Write some rows in one step, or in several where they touch many tiles; returns which were written before."""
        deltas = self._deltas(arrived, rows)
        if len(rows) > 1 and sum(delta.tiles for delta in deltas) > _TILES_AT_ONCE:
            middle = len(rows) // 2
            return self._write_batch(arrived, rows[:middle]) + self._write_batch(arrived, rows[middle:])
        named = arrived.named(rows)
        names = arrived.names or []
        seen = {named[place - 1] for place in self._send([names[row] for row in named], deltas, arrived.at)}
        if not seen:
            return []
        rest = np.array([row for row in rows.tolist() if row not in seen], dtype=np.int64)
        return [*seen, *(self._write_batch(arrived, rest) if len(rest) else [])]

    def few_steps(self, rows: FewRows, at: int) -> FewSteps:
        """The same for a few events."""
        names = [event_name(row[self._id_place]) for row in rows.values] if self._event_id else [None] * len(rows)
        repeated = _repeats(names, rows.known) if len(rows) > 1 else set()
        kept = [row for row in _in_time(rows) if row not in repeated]
        together = max(1, _TILES_AT_ONCE // self._few.tiles_each)
        for start in range(0, len(kept), together):
            repeated |= yield from self._few_at_once(rows, kept[start : start + together], names, at)
        return repeated

    def _few_at_once(self, rows: FewRows, kept: Sequence[int], names: Sequence[str | None], at: int) -> FewSteps:
        """Some rows in one step; returns which were written before."""
        repeated: set[int] = set()
        while kept:
            named = [row for row in kept if names[row] is not None]
            command = self._few.command(rows.take(kept), [name for row in kept if (name := names[row]) is not None], at)
            answer = yield FewStep(script=self._few.script, command=command, retry=len(named) == len(kept))
            seen = {named[place - 1] for place in self._seen(answer)}
            if not seen:
                break
            repeated |= seen
            kept = [row for row in kept if row not in seen]
        return repeated

    def _deltas(self, arrived: _Arrived, rows: np.ndarray) -> list[Delta]:
        """The records that some of the events make, for each view that they touch."""
        hops: list[list[Records]] = [[_NO_RECORDS] * len(log.layouts) for log in self._logs]
        for group in self._groups:
            for part, records in group.records(arrived, rows):
                hops[part.view][part.hop] = records
        found = [
            delta_of(number, log, coded.keys, of_hops, arrived.at)
            for number, (log, coded, of_hops) in enumerate(
                zip(self._logs, arrived.entities, hops, strict=True), start=1
            )
        ]
        return [delta for delta in found if delta is not None]

    def _send(self, names: Sequence[str | None], deltas: Sequence[Delta], at: int) -> list[int]:
        """Positions (from 1) of the names that were seen before; empty when everything is written."""
        keys: list[bytes | str] = [self._ids, *self._locks] if names else [*self._locks]
        arguments: list[Any] = [len(names), self._remember, 0, len(self._locks), at, *names]
        for delta in deltas:
            keys += delta.keys
            arguments += delta.arguments
        return self._seen(self._script.run(self._client, keys, arguments, retry=bool(names)))

    def _seen(self, answer: Any) -> list[int]:
        """The positions that a script answers with. Raises ConflictError where it says that tiles are rebuilt."""
        if answer[0] == _LOCKED:
            raise ConflictError(
                f"The tiles of view {self._logs[answer[1] - 1].view.name!r} are being rebuilt.",
                hint="Push the same events again when that has ended; what was counted already counts once.",
            )
        return answer[1] if answer[0] == _SEEN else []


@dataclass(frozen=True, kw_only=True)
class _Arrived:
    """The events of one call, and whom each of the views takes them to be about; rows are numbered as they arrived."""

    arrivals: Arrivals
    names: list[str | None] | None
    entities: Sequence[Coded]
    at: int

    @cached_property
    def since(self) -> np.ndarray:
        """0 for an event whose time has come, else the instant from which on it counts."""
        counts_from = np.maximum(self.arrivals.event, self.arrivals.known)
        return np.where(counts_from <= self.at, 0, counts_from)

    def named(self, rows: np.ndarray) -> list[int]:
        names = self.names
        return [] if names is None else [row for row in rows.tolist() if names[row] is not None]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The tiles of one view and hop, by their numbers in the delivery."""

    view: int
    hop: int
    layout: TileLayout


class _Group:
    """Parts whose records hold the same: they are aggregated in one go, as though each part's entities were others."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts, self._layout = parts, parts[0].layout
        self._hops = np.array([part.layout.hop for part in parts])
        self._names = [column.needs.column for column in self._layout.columns if column.needs.column]

    def records(self, arrived: _Arrived, rows: np.ndarray) -> Iterator[tuple[_Part, Records]]:
        """What some of the events make in each part; entities by their numbers in its view."""
        sizes = [arrived.entities[part.view].size for part in self._parts]
        firsts = np.cumsum([0, *sizes])
        records = build_records(self._layout, self._events(arrived, rows, firsts[:-1]))
        bounds = np.searchsorted(records.code, firsts).tolist()
        for number, (part, first) in enumerate(zip(self._parts, firsts.tolist(), strict=False)):
            mine = slice(bounds[number], bounds[number + 1])
            yield part, Records(code=records.code[mine] - first, words=records.words[mine])

    def _events(self, arrived: _Arrived, rows: np.ndarray, firsts: np.ndarray) -> Events:
        """The events once for each part, without those that are about nobody or no longer count."""
        parts, arrivals = self._parts, arrived.arrivals
        codes = np.concatenate([arrived.entities[part.view].code[rows] for part in parts])
        again = np.tile(rows, len(parts))
        tile = arrivals.event[again] // np.repeat(self._hops, len(rows))
        oldest = np.repeat([part.layout.oldest_tile(arrived.at) for part in parts], len(rows))
        kept = np.flatnonzero((codes >= 0) & (tile >= oldest))
        codes += np.repeat(firsts, len(rows))
        if len(kept) < len(again):
            codes, again, tile = codes[kept], again[kept], tile[kept]
        return Events(
            code=codes,
            tile=tile,
            event=arrivals.event[again],
            known=arrivals.known[again],
            since=arrived.since[again],
            columns={name: arrivals.column(name).take(again) for name in self._names},
        )


def tile_views(catalog: Catalog, stream: str) -> list[View]:
    """The views of a stream that are kept as tiles."""
    return [view for view in catalog.views_of_stream(stream) if view.is_windowed and view.is_pushed]


def seconds_remembered(views: Sequence[View], *, forever: bool) -> int:
    """For how long the ids of events are known again: as long as the tiles of any of the views last."""
    return max(TileLog.of(view).expiry(forever=forever) for view in views)


def remember_events(
    store: OnlineStore, stream: str, event_id: str, names: Sequence[str], *, at: int, between: Callable[[], None]
) -> None:
    """Remember events that are in the tiles already, so that a push that repeats them changes nothing.

    `between` is called after each batch.
    """
    views = [view for view in tile_views(store.catalog, stream) if view.event_id == event_id]
    remember = seconds_remembered(views, forever=store.keeps_forever)
    key, script = event_key(store.project, stream, event_id), push_script(())
    for start in range(0, len(names), _EVENTS_AT_ONCE):
        some = names[start : start + _EVENTS_AT_ONCE]
        script.run(store.resp, [key], [len(some), remember, 1, 0, at, *some])
        between()


def event_names(ids: pl.Series) -> list[str | None]:
    """Event ids as they are remembered: as they are where they are short, else their digest."""
    texts = ids.to_list() if ids.dtype == pl.String else ids.cast(pl.String).to_list()
    return [f"={text}" if text is not None and len(text) <= _LONGEST_PLAIN_ID else event_name(text) for text in texts]


def event_name(text: str | None) -> str | None:
    """One of them."""
    if text is None:
        return None
    return f"={text}" if len(text) <= _LONGEST_PLAIN_ID else _digest(text)


def _digest(name: str) -> str:
    return f"#{blake2b(name.encode(), digest_size=16).hexdigest()}"


def _groups(logs: Sequence[TileLog]) -> list[_Group]:
    parts: dict[tuple[Any, ...], list[_Part]] = {}
    for view, log in enumerate(logs):
        for hop, layout in enumerate(log.layouts):
            parts.setdefault(layout.build_shape, []).append(_Part(view=view, hop=hop, layout=layout))
    return [_Group(some) for some in parts.values()]


def _in_time(rows: FewRows) -> Sequence[int]:
    """The rows as their events happened, of which a new tile is but the next one."""
    return sorted(range(len(rows)), key=lambda row: (rows.event[row], rows.known[row])) if len(rows) > 1 else (0,)


def _repeats_within(arrivals: Arrivals, names: list[str | None] | None) -> np.ndarray:
    """Rows whose event was known earlier by another row of the same frame, or is the same row further on."""
    repeated = np.zeros(len(arrivals), dtype=bool)
    if names is not None and len(set(names)) < len(names):
        repeated[list(_repeats(names, arrivals.known.tolist()))] = True
    return repeated


def _repeats(names: Sequence[str | None], known: Sequence[int]) -> set[int]:
    if len(set(names)) == len(names):
        return set()
    first: dict[str, int] = {}
    rows = sorted(range(len(names)), key=known.__getitem__)
    return {row for row in rows if (name := names[row]) is not None and first.setdefault(name, row) != row}
