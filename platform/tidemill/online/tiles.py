"""Reading windows: which keys to ask Redis for, and how the tiles that come back become feature values.

A plan is made once for a feature service; a read is `keys` for every row, one pipeline of GETs, and `decode`. Tiles of
views and rows whose records are alike are reduced together, so that the cost of a row is mostly that of its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Aggregation, AggregationFunction, View
from tidemill.definitions.distinct import REGISTERS, estimate
from tidemill.definitions.partials import Partials, declared, finish
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import longest_window, micros
from tidemill.online.tile_layout import (
    GREATEST,
    HEADER,
    LEAST,
    NEWEST,
    SINCE,
    SKETCH_WORDS,
    TILE,
    ColumnWords,
    TileLayout,
    layouts_of,
)

_GET = b"*2\r\n$3\r\nGET\r\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class WindowColumns:
    """What a read found for one projection, a list entry for each row.

    `values` are Python values, None for null: of an entity without tiles the counts are 0 and all else is null, as in
    an empty window. `found` says whether the entity has any tile. `event_times` are those of the newest event in the
    view's longest window, int microseconds. `as_of` is the instant for which the row is exact: that of the read, or of
    the newest event where a pusher's clock is ahead of the reader's. `broken` counts Redis values that are no tiles;
    they are read as not found.
    """

    values: dict[str, list[Any]]
    found: list[bool]
    event_times: list[int | None]
    as_of: list[int]
    broken: int = 0


class TilePlan:
    """How the windowed views of a service are read. Made once, used by any number of threads.

    Args:
        project: the project's name, part of every key.
        projections: pushed windowed views with the features wanted of each, in order.
    """

    def __init__(self, project: str, projections: Sequence[tuple[View, Sequence[str]]]) -> None:
        self._projections = [_Projection.of(project, view, tuple(features)) for view, features in projections]
        self._groups = _groups(self._projections)

    def width(self, projection: int) -> int:
        """How many keys one row of this projection takes."""
        return len(self._projections[projection].prefixes)

    def keys(self, projection: int, entity_key: bytes) -> list[bytes]:
        """The Redis keys to GET for one row of this projection, given its entity's key (`KeyLayout.encode`)."""
        return [prefix + entity_key for prefix in self._projections[projection].prefixes]

    def commands(self, projection: int, entity_key: bytes) -> bytes:
        """The same as commands ready to send; `width` replies come back."""
        size = len(entity_key)
        heads = self._projections[projection].heads
        return b"".join([b"%b$%d\r\n%b%b\r\n" % (_GET, extra + size, prefix, entity_key) for prefix, extra in heads])

    def decode(self, blobs: Sequence[Sequence[bytes | None]], at: int) -> list[WindowColumns]:
        """The windows at instant `at` (int microseconds). `blobs[i]` are the replies of projection i, row by row."""
        sizes = [len(of_one) // self.width(number) for number, of_one in enumerate(blobs)]
        answers = [_nothing(size, at) for size in sizes]
        for group in self._groups:
            _decode_group(group, blobs, sizes, at, answers)
        for one, answer in zip(self._projections, answers, strict=True):
            answer.values = {name: answer.values[name] for name in one.features}
        return answers


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """One feature that is read from tiles, and where its column lies in the record."""

    function: AggregationFunction
    column: ColumnWords
    window: int
    dtype: ValueType


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The tiles of one hop of one projection."""

    projection: int = -1
    width: int = 1
    place: int
    layout: TileLayout
    aggregations: tuple[Aggregation, ...]
    readings: tuple[_Reading, ...]
    newest_of: int | None
    """The window whose newest event is the view's event time, where it lies on these tiles."""

    @property
    def signature(self) -> tuple[Any, ...]:
        readings = [(one.function, one.column.count, one.window, one.dtype) for one in self.readings]
        return (self.layout.shape, tuple(readings), self.newest_of)


@dataclass(frozen=True, kw_only=True)
class _Projection:
    features: tuple[str, ...]
    prefixes: tuple[bytes, ...]
    parts: tuple[_Part, ...]

    @cached_property
    def heads(self) -> tuple[tuple[bytes, int], ...]:
        return tuple((prefix, len(prefix)) for prefix in self.prefixes)

    @classmethod
    def of(cls, project: str, view: View, features: tuple[str, ...]) -> _Projection:
        wanted = {view.feature(name).name for name in features}
        longest = longest_window(view)
        parts: list[_Part] = []
        for layout in layouts_of(view):
            mine = tuple(item for item in layout.aggregations if item.name in wanted)
            holds_longest = layout.longest == longest and not any(part.newest_of for part in parts)
            if mine or holds_longest:
                parts.append(_part(view, layout, mine, len(parts), longest if holds_longest else None))
        return cls(features=features, prefixes=tuple(part.layout.prefix(project) for part in parts), parts=tuple(parts))


@dataclass(kw_only=True)
class _Group:
    """Parts whose records and readings are alike, so that one reduction serves them all."""

    parts: list[_Part] = field(default_factory=list)

    @property
    def layout(self) -> TileLayout:
        return self.parts[0].layout

    @property
    def readings(self) -> tuple[_Reading, ...]:
        return self.parts[0].readings


def _part(view: View, layout: TileLayout, mine: tuple[Aggregation, ...], place: int, newest_of: int | None) -> _Part:
    by_name = {column.needs.column: column for column in layout.columns}
    readings = tuple(
        _Reading(
            function=item.function,
            column=by_name[item.column],
            window=micros(item.window),
            dtype=view.feature(item.name).dtype,
        )
        for item in mine
    )
    return _Part(place=place, layout=layout, aggregations=mine, readings=readings, newest_of=newest_of)


def _groups(projections: Sequence[_Projection]) -> list[_Group]:
    groups: dict[tuple[Any, ...], _Group] = {}
    for number, projection in enumerate(projections):
        for part in projection.parts:
            placed = replace(part, projection=number, width=len(projection.parts))
            groups.setdefault(part.signature, _Group()).parts.append(placed)
    return list(groups.values())


def _nothing(size: int, at: int) -> WindowColumns:
    return WindowColumns(values={}, found=[False] * size, event_times=[None] * size, as_of=[at] * size)


def _decode_group(
    group: _Group,
    blobs: Sequence[Sequence[bytes | None]],
    sizes: Sequence[int],
    at: int,
    answers: Sequence[WindowColumns],
) -> None:
    """Reduce the tiles of a group and hand each part its rows."""
    flat: list[bytes | None] = []
    for part in group.parts:
        flat += blobs[part.projection][part.place :: part.width]
    tiles = _Tiles.of(group.layout, flat, at)
    columns = _read_all(group.readings, tiles)
    newest = tiles.newest_events(group.parts[0].newest_of)
    start = 0
    for part in group.parts:
        size = sizes[part.projection]
        rows = slice(start, start + size)
        _hand_out(part, answers[part.projection], columns, newest, tiles, rows)
        start += size


def _hand_out(
    part: _Part,
    answer: WindowColumns,
    columns: list[list[Any]],
    newest: list[int | None] | None,
    tiles: _Tiles,
    rows: slice,
) -> None:
    for item, values in zip(part.aggregations, columns, strict=True):
        answer.values[item.name] = values[rows]
    if newest is not None:
        answer.event_times = newest[rows]
    for row, number in enumerate(range(rows.start, rows.stop)):
        answer.found[row] |= tiles.there[number]
    if tiles.ahead is not None:
        answer.as_of = [max(one, other) for one, other in zip(answer.as_of, tiles.ahead[rows], strict=True)]
    answer.broken += sum(tiles.broken[rows])


class _Tiles:
    """The records of many entities, one after the other, as a matrix of words; `starts` is where each begins.

    Only entities that have records take part in reductions (`present`); the others keep the values of nothing.
    """

    def __init__(self, layout: TileLayout, words: np.ndarray, counts: list[int], size: int, at: int) -> None:
        self.layout, self.size, self.at = layout, size, at
        self.present = [number for number, count in enumerate(counts) if count > 0]
        sizes = [count for count in counts if count > 0]
        self.starts = np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, dtype=np.int64)
        self.sizes = sizes
        self.whole, self.real = words, words.view("<f8")
        self.tile = words[:, TILE]
        self.there: list[bool] = [count > 0 for count in counts]
        self.broken: list[bool] = [count < 0 for count in counts]
        self.visible = self._visible()
        self.ahead = self._ahead()
        self._reductions: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}

    @classmethod
    def of(cls, layout: TileLayout, blobs: Sequence[bytes | None], at: int) -> _Tiles:
        counts = [_records_in(blob, layout.record_bytes) for blob in blobs]
        joined = b"".join([blob for blob, count in zip(blobs, counts, strict=True) if blob and count > 0])
        words = np.frombuffer(joined, dtype="<i8").reshape(-1, layout.words)
        return cls(layout, words, counts, len(blobs), at)

    def inside(self, window: int) -> np.ndarray | None:
        """Which records count in a window; None for all."""
        mask = self.tile >= (self.at - window) // self.layout.hop
        if self.visible is not None:
            mask &= self.visible
        return None if mask.all() else mask

    def sums(self, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """All whole sums and all float sums of a window, a row for each present entity; and its mask."""
        found = self._reductions.get(window)
        if found is None:
            mask = self.inside(window)
            first, middle = HEADER, HEADER + self.layout.whole_adds
            whole = _added(self.whole[:, first:middle], mask, self.starts)
            real = _added(self.real[:, middle : middle + self.layout.float_adds], mask, self.starts)
            found = self._reductions[window] = (whole, real, mask)
        return found

    def newest_events(self, window: int | None) -> list[int | None] | None:
        if window is None:
            return None
        found: list[int | None] = [None] * self.size
        if self.present:
            newest = _reduced(self.whole[:, NEWEST], self.inside(window), LEAST, np.maximum, self.starts).tolist()
            for number, event in zip(self.present, newest, strict=True):
                found[number] = None if event == LEAST else event
        return found

    def _visible(self) -> np.ndarray | None:
        """Which records' time has come; None where all of them count."""
        since = self.whole[:, SINCE]
        if len(since) == 0 or since.max() <= self.at:
            return None
        return since <= self.at

    def _ahead(self) -> list[int] | None:
        """Where events were counted that lie after the read: the instants of those events."""
        newest = self.whole[:, NEWEST]
        if len(newest) == 0 or newest.max() <= self.at:
            return None
        found = [self.at] * self.size
        counted = _reduced(newest, self.visible, LEAST, np.maximum, self.starts).tolist()
        for number, event in zip(self.present, counted, strict=True):
            found[number] = max(self.at, event)
        return found


def _records_in(blob: bytes | None, record_bytes: int) -> int:
    """How many records a value holds; -1 where it is no log of records."""
    if not blob:
        return 0
    count, rest = divmod(len(blob), record_bytes)
    return -1 if rest else count


def _added(words: np.ndarray, mask: np.ndarray | None, starts: np.ndarray) -> np.ndarray:
    if words.shape[1] == 0 or len(starts) == 0:
        return np.zeros((len(starts), words.shape[1]), dtype=words.dtype)
    inside = words if mask is None else np.where(mask[:, None], words, 0)
    return np.add.reduceat(inside, starts, axis=0)


def _reduced(
    words: np.ndarray, mask: np.ndarray | None, identity: float, combine: np.ufunc, starts: np.ndarray
) -> np.ndarray:
    inside = words if mask is None else np.where(mask, words, words.dtype.type(identity))
    return combine.reduceat(inside, starts)


def _read_all(readings: Sequence[_Reading], tiles: _Tiles) -> list[list[Any]]:
    """Every reading's values for all entities."""
    partials: dict[tuple[int, int], Partials] = {}
    columns = []
    for reading in readings:
        place = (reading.column.count, reading.window)
        if place not in partials:
            partials[place] = _partials(reading, readings, tiles)
        columns.append(_values(reading, partials[place], tiles))
    return columns


def _partials(reading: _Reading, readings: Sequence[_Reading], tiles: _Tiles) -> Partials:
    """Partial aggregates of one column in one window, for the functions that any reading asks of it."""
    column, function = reading.column, AggregationFunction
    asked = {one.function for one in readings if one.column is column and one.window == reading.window}
    whole, real, mask = tiles.sums(reading.window)
    numbers = tiles.whole if column.needs.whole else tiles.real
    found = Partials(count=whole[:, column.count - HEADER])
    if column.total is not None:
        place = column.total - HEADER
        in_whole = column.needs.whole
        found.total = whole[:, place] if in_whole else real[:, place - tiles.layout.whole_adds]
    if column.lowest is not None and function.MIN in asked:
        identity = GREATEST if column.needs.whole else np.inf
        found.lowest = _reduced(numbers[:, column.lowest], mask, identity, np.minimum, tiles.starts)
    if column.highest is not None and function.MAX in asked:
        identity = LEAST if column.needs.whole else -np.inf
        found.highest = _reduced(numbers[:, column.highest], mask, identity, np.maximum, tiles.starts)
    if asked & {function.VAR, function.STD}:
        found.spread = _spread(column, found, tiles, mask)
    if column.first is not None and function.FIRST in asked:
        found.first = _end(column.first, numbers, tiles, mask, newest=False)
    if column.last is not None and function.LAST in asked:
        found.last = _end(column.last, numbers, tiles, mask, newest=True)
    if column.distinct is not None and function.COUNT_DISTINCT in asked:
        found.distinct = _distinct(column.distinct, tiles, mask)
    return found


def _spread(column: ColumnWords, found: Partials, tiles: _Tiles, mask: np.ndarray | None) -> np.ndarray:
    """Squared deviations within tiles, and of the tiles' means from the window's mean."""
    if column.spread is None or column.total is None or found.total is None:
        raise ValueError("a spread is read that the tiles do not hold")
    numbers = tiles.whole if column.needs.whole else tiles.real
    count = tiles.whole[:, column.count]
    mean = found.total / np.maximum(found.count, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = numbers[:, column.total] / np.maximum(count, 1) - np.repeat(mean, tiles.sizes)
        return _reduced(tiles.real[:, column.spread] + count * apart * apart, mask, 0.0, np.add, tiles.starts)


def _end(place: int, numbers: np.ndarray, tiles: _Tiles, mask: np.ndarray | None, *, newest: bool) -> np.ndarray:
    """The value of the first or last event in order of (event time, known time, arrival)."""
    combine, nothing = (np.maximum, LEAST) if newest else (np.minimum, GREATEST)
    candidates = np.ones(len(tiles.tile), dtype=bool) if mask is None else mask
    for word in (place, place + 1):
        times = tiles.whole[:, word]
        best = _reduced(times, candidates, nothing, combine, tiles.starts)
        candidates = candidates & (times == np.repeat(best, tiles.sizes))
    numbering = np.arange(len(candidates))
    chosen = _reduced(numbering, candidates, -1 if newest else len(candidates) - 1, combine, tiles.starts)
    return numbers[np.maximum(chosen, 0), place + 2]


def _distinct(place: int, tiles: _Tiles, mask: np.ndarray | None) -> np.ndarray:
    words = tiles.whole[:, place : place + SKETCH_WORDS]
    inside = words if mask is None else np.where(mask[:, None], words, 0)
    registers = np.ascontiguousarray(inside).view(np.uint8).reshape(-1, REGISTERS)
    if len(registers) == 0:
        return np.zeros(0, dtype=np.int64)
    return estimate(np.maximum.reduceat(registers, tiles.starts, axis=0))


def _values(reading: _Reading, partials: Partials, tiles: _Tiles) -> list[Any]:
    """Python values for all entities, in their order."""
    values, present = finish(reading.function, partials)
    listed = declared(values, reading.dtype).tolist()
    if not present.all():
        listed = [value if there else None for value, there in zip(listed, present.tolist(), strict=True)]
    if reading.dtype is ValueType.UNIX_TIMESTAMP:
        listed = [None if value is None else _EPOCH + timedelta(microseconds=value) for value in listed]
    if len(listed) == tiles.size:
        return listed
    empty = 0 if reading.function is AggregationFunction.COUNT else None
    everyone = [empty] * tiles.size
    for number, value in zip(tiles.present, listed, strict=True):
        everyone[number] = value
    return everyone
