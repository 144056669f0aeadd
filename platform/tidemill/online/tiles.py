"""Reading windows: which keys to ask Redis for, and how the tiles that come back become feature values.

A plan is made once for a feature service; a read is `keys` for every row, one pipeline of GETs, and `decode`. Tiles of
views and rows whose records are alike are reduced together, so that the cost of a row is mostly that of its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Aggregation, AggregationFunction, View
from tidemill.definitions.partials import ADDED, Partials, declared, finish, held
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import longest_window, lower_bound, micros, of_nothing
from tidemill.online.tile_layout import SINCE, ColumnWords, TileLayout
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_reduce import Tiles, partials

_GET = b"*2\r\n$3\r\nGET\r\n"
_KEY_SIZES_KEPT = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class WindowColumns:
    """What a read found for one projection, a list entry for each row.

    `values` are Python values, None for null: of an entity without tiles the counts are 0 and all else is null, as in
    an empty window. `found` says whether the entity has any tile. `event_times` are those of the newest event in the
    view's longest window, int microseconds. `as_of` is the instant for which the row is exact: that of the read, or of
    the newest event where a pusher's clock is ahead of the reader's. `broken` counts Redis values that are no tiles;
    they are read as not found. `wrong` names features of which some number was more than its type holds, and is None.
    """

    values: dict[str, list[Any]]
    found: list[bool]
    event_times: list[int | None]
    as_of: list[int]
    broken: int = 0
    wrong: list[str] = field(default_factory=list)

    def of_rows(self, rows: Sequence[int]) -> WindowColumns:
        """The same for other rows, each of which is one of these."""
        return replace(
            self,
            values={name: [column[row] for row in rows] for name, column in self.values.items()},
            found=[self.found[row] for row in rows],
            event_times=[self.event_times[row] for row in rows],
            as_of=[self.as_of[row] for row in rows],
        )


class TilePlan:
    """How the windowed views of a service are read. Made once, used by any number of threads.

    Args:
        project: the project's name, part of every key.
        projections: pushed windowed views with the features wanted of each, in order.
    """

    def __init__(self, project: str, projections: Sequence[tuple[View, Sequence[str]]]) -> None:
        self._projections = [_Projection.of(project, view, tuple(features)) for view, features in projections]
        self.groups = _groups(self._projections)

    def features(self, projection: int) -> tuple[str, ...]:
        """The features wanted of a projection, in order."""
        return self._projections[projection].features

    def key(self, projection: int, entity_key: bytes) -> bytes:
        """The Redis key to GET for one row of this projection, given its entity's key (`KeyLayout.encode`)."""
        return self._projections[projection].prefix + entity_key

    def commands(self, projection: int, entity_key: bytes) -> bytes:
        """The same as a command ready to send; one reply comes back."""
        found = self._projections[projection]
        head = found.heads_of.get(len(entity_key)) or found.add_head(len(entity_key))
        return head + entity_key + b"\r\n"

    def log(self, projection: int) -> TileLog:
        """How one key's value holds the records of each hop of a projection's view."""
        return self._projections[projection].log

    def decode(self, blobs: Sequence[Sequence[bytes | None]], at: int) -> list[WindowColumns]:
        """The windows at instant `at` (int microseconds). `blobs[i]` are the replies of projection i, row by row."""
        sizes = [len(of_one) for of_one in blobs]
        answers = [_nothing(size, at) for size in sizes]
        logs = [one.logs(of_one) for one, of_one in zip(self._projections, blobs, strict=True)]
        for group in self.groups:
            _decode_group(group, logs, sizes, at, answers)
        for one, answer in zip(self._projections, answers, strict=True):
            answer.values = {name: answer.values[name] for name in one.features}
        return answers


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """One feature that is read from tiles: where its column lies in the record, and which of the windows it takes."""

    function: AggregationFunction
    column: ColumnWords
    window: int
    dtype: ValueType


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The tiles of one hop of one projection."""

    projection: int = -1
    hop: int
    """The number of these tiles among the hops of their log."""
    layout: TileLayout
    names: tuple[str, ...]
    readings: tuple[_Reading, ...]
    windows: tuple[int, ...]
    newest_of: int | None
    """The window whose newest event is the view's event time, where it lies on these tiles."""

    def oldest_newest(self, at: int) -> int | None:
        """From when on an event is in that window."""
        return None if self.newest_of is None else lower_bound(at, self.newest_of, self.layout.hop)

    @property
    def signature(self) -> tuple[Any, ...]:
        readings = [(one.function, one.column.count, one.window, one.dtype) for one in self.readings]
        return (self.layout.shape, len(self.windows), tuple(readings))


@dataclass(frozen=True, kw_only=True)
class _Projection:
    features: tuple[str, ...]
    prefix: bytes
    log: TileLog
    parts: tuple[_Part, ...]

    @cached_property
    def heads_of(self) -> dict[int, bytes]:
        """What comes before an entity's key in the command, for keys of each length met so far."""
        return {}

    def add_head(self, size: int) -> bytes:
        head = b"%b$%d\r\n%b" % (_GET, len(self.prefix) + size, self.prefix)
        if len(self.heads_of) < _KEY_SIZES_KEPT:
            self.heads_of[size] = head
        return head

    def logs(self, blobs: Sequence[bytes | None]) -> list[list[bytes | None]]:
        """Of each hop the records of each row."""
        nothing: list[bytes | None] = [None] * len(self.log.layouts)
        rows = [self.log.split(blob) if blob else nothing for blob in blobs]
        return [[row[hop] for row in rows] for hop in range(len(self.log.layouts))]

    @classmethod
    def of(cls, project: str, view: View, features: tuple[str, ...]) -> _Projection:
        wanted = {view.feature(name).name for name in features}
        longest, log = longest_window(view), TileLog.of(view)
        parts: list[_Part] = []
        for hop, layout in enumerate(log.layouts):
            mine = tuple(item for item in layout.aggregations if item.name in wanted)
            holds_longest = layout.longest == longest and not any(part.newest_of for part in parts)
            if mine or holds_longest:
                parts.append(_part(view, layout, mine, hop, longest if holds_longest else None))
        return cls(features=features, prefix=log.prefix(project), log=log, parts=tuple(parts))


class TileGroup:
    """Parts whose records and readings are alike, so that one reduction serves them all; compiled once."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        first = parts[0]
        self.parts, self.layout = parts, first.layout
        self.readings = first.readings
        self.windows = len(first.windows)
        columns = {one.column.count: one.column for one in self.readings}
        self.asked = [
            (column, frozenset(one.function for one in self.readings if one.column.count == place))
            for place, column in columns.items()
        ]
        finishes: dict[tuple[AggregationFunction, ValueType, int], list[tuple[int, int]]] = {}
        for number, one in enumerate(self.readings):
            kind = (one.function, one.dtype, one.column.count)
            finishes.setdefault(kind, []).append((number, one.window))
        self.finishes = list(finishes.items())
        self._windows_of = np.array([part.windows for part in parts], dtype=np.int64).reshape(len(parts), -1)
        self._hops = np.array([[part.layout.hop] for part in parts], dtype=np.int64)

    def oldest(self, repeats: Sequence[int], at: int) -> np.ndarray:
        """The first tile that counts, for each entity in each window; `repeats` are the parts' numbers of entities."""
        found = (at - self._windows_of) // self._hops
        return found if len(repeats) == sum(repeats) == repeats.count(1) else np.repeat(found, repeats, axis=0)

    def read_one(self, blobs: Sequence[bytes], at: int) -> list[Any] | None:
        """One entity for each part: of each reading a value for each part. None where some record's time comes later
        than others' of its tile, or a number is more than its type holds."""
        tiles = Tiles(self.layout, blobs, (at - self._windows_of) // self._hops, at)
        if sum(tiles.sizes) * self.layout.record_bytes != sum(map(len, blobs)) or tiles.whole[:, SINCE].any():
            return None
        columns, wrong = _read_all(self, tiles, len(blobs))
        return None if wrong else list(chain.from_iterable(columns))


def _part(view: View, layout: TileLayout, mine: tuple[Aggregation, ...], hop: int, newest_of: int | None) -> _Part:
    by_name = {column.needs.column: column for column in layout.columns}
    windows = tuple(dict.fromkeys(micros(item.window) for item in mine))
    readings = tuple(
        _Reading(
            function=item.function,
            column=by_name[item.column],
            window=windows.index(micros(item.window)),
            dtype=view.feature(item.name).dtype,
        )
        for item in mine
    )
    names = tuple(item.name for item in mine)
    return _Part(hop=hop, layout=layout, names=names, readings=readings, windows=windows, newest_of=newest_of)


def _groups(projections: Sequence[_Projection]) -> list[TileGroup]:
    groups: dict[tuple[Any, ...], list[_Part]] = {}
    for number, projection in enumerate(projections):
        for part in projection.parts:
            placed = replace(part, projection=number)
            groups.setdefault(part.signature, []).append(placed)
    return [TileGroup(parts) for parts in groups.values()]


def _nothing(size: int, at: int) -> WindowColumns:
    return WindowColumns(values={}, found=[False] * size, event_times=[None] * size, as_of=[at] * size)


def _decode_group(
    group: TileGroup,
    logs: Sequence[Sequence[Sequence[bytes | None]]],
    sizes: Sequence[int],
    at: int,
    answers: Sequence[WindowColumns],
) -> None:
    """Reduce the tiles of a group and hand each part its rows."""
    flat: list[bytes | None] = []
    for part in group.parts:
        flat += logs[part.projection][part.hop]
    repeats = [sizes[part.projection] for part in group.parts]
    tiles = Tiles(group.layout, flat, group.oldest(repeats, at), at)
    columns, wrong = _read_all(group, tiles, len(flat))
    newest = tiles.newest()
    start = 0
    for part, size in zip(group.parts, repeats, strict=True):
        answer, stop = answers[part.projection], start + size
        for name, values in zip(part.names, columns, strict=True):
            answer.values[name] = values[start:stop]
        answer.wrong += [part.names[number] for number, rows in wrong if any(start <= row < stop for row in rows)]
        _hand_out_times(part, newest[start:stop], at, answer)
        start = stop
    for number in tiles.broken:
        _owner(group, repeats, answers, number).broken += 1


def _hand_out_times(part: _Part, newest: Sequence[int | None], at: int, answer: WindowColumns) -> None:
    """Which entities were found, their newest events, and where those lie after the read."""
    oldest = part.oldest_newest(at)
    for row, event in enumerate(newest):
        if event is None:
            continue
        answer.found[row] = True
        if oldest is not None and event >= oldest:
            answer.event_times[row] = event
        if event > at:
            answer.as_of[row] = max(answer.as_of[row], event)


def _owner(group: TileGroup, repeats: Sequence[int], answers: Sequence[WindowColumns], number: int) -> WindowColumns:
    """The answer that an entity of a group belongs to."""
    owners = (part for part, size in zip(group.parts, repeats, strict=True) for _ in range(size))
    return answers[next(islice(owners, number, None)).projection]


def _read_all(group: TileGroup, tiles: Tiles, size: int) -> tuple[list[list[Any]], list[tuple[int, set[int]]]]:
    """Every reading's values for all entities; and by number the readings of which some value is more than its type
    holds, with these entities."""
    found = {column.count: partials(tiles, column, asked) for column, asked in group.asked}
    everyone = len(tiles.present) == size
    columns: list[list[Any]] = [[]] * len(group.readings)
    wrong: list[tuple[int, set[int]]] = []
    for (function, dtype, place), readings in group.finishes:
        by_window, unfit = _finished(function, dtype, found[place], group.windows)
        nothing = of_nothing(function, dtype)
        for number, window in readings:
            columns[number] = by_window[window] if everyone else _for_everyone(nothing, by_window[window], tiles, size)
            if unfit is not None and (rows := np.flatnonzero(unfit[:, window]).tolist()):
                wrong.append((number, {tiles.present[row] for row in rows}))
    return columns, wrong


def _finished(
    function: AggregationFunction, dtype: ValueType, found: Partials, windows: int
) -> tuple[list[list[Any]], np.ndarray | None]:
    """Python values of the present entities, a list for each window; and (entities, windows), which are more than the
    type holds, and therefore None."""
    values, present = finish(function, found)
    fits = held(values, dtype)
    unfit = found.unfit if function in ADDED else None
    if fits is not None:
        wide, present = present & ~fits, present & fits
        unfit = wide if unfit is None else unfit | wide
    by_window = declared(values, dtype).reshape(-1, windows).T.tolist()
    if b"\0" in present.tobytes():
        theres = present.reshape(-1, windows).T.tolist()
        by_window = [
            [value if there else None for value, there in zip(*both, strict=True)]
            for both in zip(by_window, theres, strict=True)
        ]
    if dtype is ValueType.UNIX_TIMESTAMP:
        by_window = [[None if v is None else _EPOCH + timedelta(microseconds=v) for v in one] for one in by_window]
    return by_window, None if unfit is None else unfit.reshape(-1, windows)


def _for_everyone(nothing: float | None, values: list[Any], tiles: Tiles, size: int) -> list[Any]:
    """Values of present entities among those of all; of an entity without tiles as of an empty window."""
    answer: list[Any] = [nothing] * size
    for number, value in zip(tiles.present, values, strict=True):
        answer[number] = value
    return answer
