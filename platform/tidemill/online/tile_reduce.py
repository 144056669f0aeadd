"""Reducing the tiles of many entities in all their windows at once.

An entity's records are sorted by tile, so what counts in a window is a tail of them: one `reduceat` over pairs of
(first record, end) answers all entities and windows. A slot is one entity in one window; slots are ordered by entity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from tidemill.definitions.catalog import AggregationFunction
from tidemill.definitions.distinct import REGISTERS, estimate
from tidemill.definitions.partials import ADDED, LOW, WIDE, Partials, joined
from tidemill.online.tile_layout import (
    GREATEST,
    LEAST,
    NEWEST,
    SINCE,
    SKETCH_WORDS,
    TILE,
    ColumnWords,
    TileLayout,
)

_STRETCH = 44
"""Bits for the number of a tile: enough until the year 2500 for a hop of a millisecond, the shortest there is."""
_NEVER = -(2**63)
_WORD, _REAL = np.dtype("<i8"), np.dtype("<f8")


class Tiles:
    """The records of many entities, one after the other, as a matrix of words, and a last one that stands for nothing.

    Args:
        blobs: each entity's log; None or empty where it has none.
        oldest: (len(blobs), windows), the first tile that counts for each entity in each window.
        at: the instant of the read; records whose time has not come by then are left out.

    Only entities that have records take part (`present`, by position). `broken` are those whose value is no log.
    """

    def __init__(self, layout: TileLayout, blobs: Sequence[bytes | None], oldest: np.ndarray, at: int) -> None:
        self.layout, self.at, self._entities = layout, at, len(blobs)
        size = layout.record_bytes
        self.present = [number for number, blob in enumerate(blobs) if blob and not len(blob) % size]
        self.found, self.broken = self.present, ()
        logs = blobs
        if len(self.present) < len(blobs):
            self.broken = [number for number, blob in enumerate(blobs) if blob and len(blob) % size]
            oldest = oldest[self.present]
            logs = [blobs[number] for number in self.present]
        words = np.frombuffer(b"".join([*logs, b"\0" * size]), _WORD).reshape(-1, layout.words)  # type: ignore[list-item]
        sizes = [len(log) // size for log in logs]  # type: ignore[arg-type]
        if len(words) > 1 and np.maximum.reduce(words[:, SINCE]) > at:
            words, sizes, oldest = self._come(words, sizes, oldest)
        self.whole, self.real = words, words.view(_REAL)
        self.sizes, self.oldest = sizes, oldest
        self.ends = np.array(list(accumulate(sizes)), dtype=np.int64)
        self.starts = self.ends - sizes
        self.first, self.empty, self._pairs = self._slots()

    @property
    def windows(self) -> int:
        return self.oldest.shape[1]

    def newest(self) -> list[int | None]:
        """The newest event of each entity, int microseconds; None for one without records.

        `found` says more than `present`: there are records, though the time of none has come.
        """
        times: list[int | None] = [None] * self._entities
        for number in self.found:
            times[number] = _NEVER
        if self.present:
            newest = np.maximum.reduceat(self.whole[:-1, NEWEST], self.starts).tolist()
            if len(newest) == self._entities:
                return newest
            for number, event in zip(self.present, newest, strict=True):
                times[number] = event
        return times

    def _slots(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """The first record that counts for each (entity, window); the slots that hold none; and (first, end) pairs."""
        shape = (len(self.starts), self.windows)
        if 0 in shape:
            return np.zeros(shape, dtype=np.int64), None, np.zeros(0, dtype=np.int64)
        # Each entity's tiles lie in a stretch of numbers of its own, so that one search finds all slots.
        stretches = _stretches(shape[0])
        tiles = self.whole[:-1, TILE] + stretches.repeat(self.sizes)
        pairs = np.empty((*shape, 2), dtype=np.int64)
        pairs[:, :, 1] = ends = self.ends[:, None]
        pairs[:, :, 0] = first = tiles.searchsorted(self.oldest + stretches[:, None])
        nothing = first == ends
        return first, nothing.reshape(-1) if b"\1" in nothing.tobytes() else None, pairs.reshape(-1)

    def whole_sum(self, word: int) -> np.ndarray:
        return self.reduced(self.whole[:, word], np.add, 0)

    def total(self, word: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Sums of whole values, and which are more than 64 bits hold; None where none can be."""
        words = self.whole[:, word]
        if adds_up(words):
            return self.whole_sum(word), None
        total, unfit = joined(self.reduced(words >> 32, np.add, 0), self.reduced(words & LOW, np.add, 0))
        return total, unfit | self.reduced(words == WIDE, np.logical_or, False)

    def real_sum(self, word: int) -> np.ndarray:
        return self.reduced(self.real[:, word], np.add, 0.0)

    def reduced(self, words: np.ndarray, combine: np.ufunc, identity: float) -> np.ndarray:
        """One or several columns of words combined in each slot."""
        slots = self._pairs
        if len(slots) == 0:
            return words[:0]
        answer = combine.reduceat(words, slots)[::2]
        if self.empty is not None:
            answer[self.empty] = identity
        return answer

    @cached_property
    def spread_out(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every record of every slot that has some: (slots, where each one's records begin, the records)."""
        first = self.first.reshape(-1)
        lengths = np.repeat(self.ends, self.windows) - first
        slots = np.flatnonzero(lengths)
        lengths = lengths[slots]
        begins = np.cumsum(lengths) - lengths
        records = np.repeat(first[slots] - begins, lengths) + np.arange(int(lengths.sum()))
        return slots, begins, records

    def _come(
        self, words: np.ndarray, sizes: list[int], oldest: np.ndarray
    ) -> tuple[np.ndarray, list[int], np.ndarray]:
        """The records whose time has come; entities that have none of them take no part."""
        seen = words[:, SINCE] <= self.at
        counted = np.concatenate(([0], np.cumsum(seen)))[np.cumsum([0, *sizes])]
        left = np.diff(counted)
        some = np.flatnonzero(left)
        self.present = [self.found[number] for number in some.tolist()]
        return np.ascontiguousarray(words[seen]), left[some].tolist(), oldest[some]


def adds_up(words: np.ndarray) -> bool:
    """Whether 64 bits certainly hold every sum of some of these whole numbers, of which there is at least one."""
    most = GREATEST // len(words)
    return bool(np.maximum.reduce(words) <= most and np.minimum.reduce(words) >= -most)


@lru_cache(maxsize=64)
def _stretches(entities: int) -> np.ndarray:
    return np.arange(entities) << _STRETCH


def partials(tiles: Tiles, column: ColumnWords, asked: frozenset[AggregationFunction]) -> Partials:
    """Partial aggregates of one column in every slot, for the functions that are asked."""
    function, needs = AggregationFunction, column.needs
    numbers = tiles.whole if needs.whole else tiles.real
    found = Partials(count=tiles.whole_sum(column.count))
    if column.total is not None and asked & ADDED:
        found.total, found.unfit = tiles.total(column.total) if needs.whole else (tiles.real_sum(column.total), None)
    if column.lowest is not None and function.MIN in asked:
        found.lowest = tiles.reduced(numbers[:, column.lowest], np.minimum, GREATEST if needs.whole else np.inf)
    if column.highest is not None and function.MAX in asked:
        found.highest = tiles.reduced(numbers[:, column.highest], np.maximum, LEAST if needs.whole else -np.inf)
    if column.spread is not None and asked & {function.VAR, function.STD}:
        found.spread = _spread(tiles, column, numbers, found)
    if column.first is not None and function.FIRST in asked:
        found.first = _end(tiles, column.first, numbers, newest=False)
    if column.last is not None and function.LAST in asked:
        found.last = _end(tiles, column.last, numbers, newest=True)
    if column.distinct is not None and function.COUNT_DISTINCT in asked:
        found.distinct = _distinct(tiles, column.distinct)
    return found


def _spread(tiles: Tiles, column: ColumnWords, numbers: np.ndarray, found: Partials) -> np.ndarray:
    """Squared deviations within tiles, and of the tiles' means from the window's mean."""
    slots, begins, records = tiles.spread_out
    answer = np.zeros(len(found.count))
    if len(slots) == 0 or found.total is None or column.total is None:
        return answer
    lengths = np.diff(np.append(begins, len(records)))
    mean = np.repeat(found.total[slots] / np.maximum(found.count[slots], 1), lengths)
    count = tiles.whole[records, column.count]
    with np.errstate(invalid="ignore", over="ignore"):
        apart = numbers[records, column.total] / np.maximum(count, 1) - mean
        answer[slots] = np.add.reduceat(tiles.real[records, column.spread] + count * apart * apart, begins)
    return answer


def _end(tiles: Tiles, place: int, numbers: np.ndarray, *, newest: bool) -> np.ndarray:
    """The value of the first or last event in order of (event time, known time, arrival)."""
    slots, begins, records = tiles.spread_out
    answer = np.zeros(len(tiles.present) * tiles.windows, dtype=numbers.dtype)
    if len(slots) == 0:
        return answer
    lengths = np.diff(np.append(begins, len(records)))
    combine, nothing = (np.maximum, LEAST) if newest else (np.minimum, GREATEST)
    candidates = np.ones(len(records), dtype=bool)
    for word in (place, place + 1):
        times = np.where(candidates, tiles.whole[records, word], nothing)
        candidates &= times == np.repeat(combine.reduceat(times, begins), lengths)
    chosen = combine.reduceat(np.where(candidates, records, -1 if newest else len(tiles.whole)), begins)
    answer[slots] = numbers[chosen, place + 2]
    return answer


def _distinct(tiles: Tiles, place: int) -> np.ndarray:
    registers = np.ascontiguousarray(tiles.whole[:, place : place + SKETCH_WORDS]).view(np.uint8)
    return estimate(tiles.reduced(registers.reshape(-1, REGISTERS), np.maximum, 0))
