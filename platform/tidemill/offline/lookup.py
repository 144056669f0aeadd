"""The point-in-time lookup: for each label, the position of the source row that wins.

A label asks for one entity (its code) at one cut-off. Its candidates are the rows of that entity with
`event <= cutoff`, `known <= known_cutoff` and `event >= floor`; the winner has the greatest event time, then the
greatest known time, then the last position (semantics, section 2).

The source is gone through in chunks, newest first. Within a chunk the rows of each entity lie side by side in event
order as packed integers, `code << shift | rank`, and each label finds its row by one binary search; where rows share
few times, a grid of times by entities needs no search at all. A label that has
its winner asks no older chunk, so a time-ordered source costs each label about one search whatever its depth, and
memory is labels and one or two chunks. Chunks whose times overlap (a file in any order) are compared by their winners.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.offline.chunk_grid import ChunkGrid
from tidemill.offline.chunk_index import ChunkIndex, Matches
from tidemill.offline.instants import NEVER, Instants

Index = ChunkIndex | ChunkGrid
T = TypeVar("T")
_AHEAD = 1
"""Chunks read beyond those being read by the threads."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is asked, one entry for each row of a spine. A code of -1 (a null key) matches nothing."""

    codes: npt.NDArray[np.integer]
    cutoff: Instants
    known_cutoff: Instants
    floor: Instants | None = None
    first_codes: npt.NDArray[np.integer] | None = None

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, kw_only=True)
class Winners:
    """For each label the winning row: its position in the source (-1: none), its event time and known time."""

    position: npt.NDArray[np.int64]
    event: Instants
    known: Instants

    @classmethod
    def none(cls, labels: int) -> Winners:
        return cls(
            position=np.full(labels, -1, np.int64),
            event=np.full(labels, NEVER, np.int64),
            known=np.full(labels, NEVER, np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some row groups of a source, with the bounds of their event times; `load` reads and indexes them.

    `first_codes` bounds the codes of the first join key in it, from the first to before the last, where that is known.
    """

    least: int
    greatest: int
    load: Callable[[], Index]
    first_codes: tuple[int, int] | None = None


def find_winners(chunks: Sequence[Chunk], labels: Labels, *, threads: int = 2) -> Winners:
    """The winner of every label. Exact for any order of rows and chunks."""
    winners = Winners.none(len(labels))
    asking = np.flatnonzero((labels.codes >= 0) & (labels.cutoff != NEVER))
    if not len(asking):
        return winners
    wanted = _that_can_matter(chunks, labels, asking)
    if labels.first_codes is not None and _is_clustered(wanted, labels.first_codes[asking]):
        _find_by_entity(wanted, labels, labels.first_codes, asking, winners, threads)
        return winners
    queue = _Queue(labels, asking)
    for place, (chunk, index) in enumerate(_loaded(wanted, threads)):
        older = wanted[place + 1].greatest if place + 1 < len(wanted) else None
        waiting = queue.admit(chunk.least)
        if not len(waiting):
            continue
        _search(index, labels, waiting, winners)
        queue.keep(_still_asking(labels, winners, waiting, older))
    return winners


def _is_clustered(chunks: Sequence[Chunk], first_codes: npt.NDArray[np.integer]) -> bool:
    """Whether the chunks share out the entities, each label having business with one or two of them."""
    if len(chunks) < 2:
        return False
    ranges = [chunk.first_codes for chunk in chunks if chunk.first_codes is not None]
    entities = int(first_codes.max()) + 1
    return len(ranges) == len(chunks) and sum(end - start for start, end in ranges) <= 2 * entities + len(chunks)


def _find_by_entity(
    chunks: Sequence[Chunk],
    labels: Labels,
    first_codes: npt.NDArray[np.integer],
    asking: npt.NDArray[np.int64],
    winners: Winners,
    threads: int,
) -> None:
    """Each chunk is asked by the labels of its entities only; chunks nobody asks are not read."""
    order = asking[pl.Series(first_codes[asking]).arg_sort().to_numpy()]
    sorted_codes = first_codes[order]
    slices = {
        id(chunk): order[slice(*np.searchsorted(sorted_codes, chunk.first_codes, side="left"))]
        for chunk in chunks
        if chunk.first_codes is not None
    }
    asked = [slices[id(chunk)] for chunk in chunks]
    work = [
        partial(_matches, chunk, labels, waiting) for chunk, waiting in zip(chunks, asked, strict=True) if len(waiting)
    ]
    for found in _ahead(work, threads):
        if found is not None:
            _take(*found, winners)


class _Queue:
    """Labels that still ask. A label joins at the first chunk that is not wholly after its cut-off."""

    def __init__(self, labels: Labels, asking: npt.NDArray[np.int64]) -> None:
        cutoffs = labels.cutoff[asking]
        order = pl.Series(cutoffs).arg_sort().to_numpy()
        self._by_cutoff = asking[order]
        self._cutoffs = cutoffs[order]
        self._joined = len(asking)
        self._waiting = np.empty(0, np.int64)

    def admit(self, least: int) -> npt.NDArray[np.int64]:
        first = int(np.searchsorted(self._cutoffs, least, side="left"))
        if first < self._joined:
            fresh = self._by_cutoff[first : self._joined]
            self._waiting = np.concatenate([self._waiting, fresh]) if len(self._waiting) else fresh
            self._joined = first
        return self._waiting

    def keep(self, waiting: npt.NDArray[np.int64]) -> None:
        self._waiting = waiting


def _that_can_matter(chunks: Sequence[Chunk], labels: Labels, asking: npt.NDArray[np.int64]) -> list[Chunk]:
    """The chunks that hold times anybody may see, newest first."""
    last = int(labels.cutoff[asking].max())
    first = NEVER if labels.floor is None else int(labels.floor[asking].min())
    wanted = [chunk for chunk in chunks if chunk.least <= last and chunk.greatest >= first]
    return sorted(wanted, key=lambda chunk: chunk.greatest, reverse=True)


def _loaded(chunks: Sequence[Chunk], threads: int) -> Iterator[tuple[Chunk, Index]]:
    """The chunks with their indexes, in order, the next ones being read meanwhile."""
    return zip(chunks, _ahead([chunk.load for chunk in chunks], threads), strict=True)


def _ahead(work: Sequence[Callable[[], T]], threads: int) -> Iterator[T]:
    """The results of some work in order, the next being done meanwhile; never many results at one time."""
    if len(work) <= 1 or threads <= 1:
        yield from (item() for item in work)
        return
    with ThreadPoolExecutor(threads) as workers:
        doing: deque[Future[T]] = deque()
        try:
            for item in work:
                doing.append(workers.submit(item))
                if len(doing) >= threads + _AHEAD:
                    yield doing.popleft().result()
            while doing:
                yield doing.popleft().result()
        finally:
            for future in doing:
                future.cancel()


def _search(index: Index, labels: Labels, waiting: npt.NDArray[np.int64], winners: Winners) -> None:
    """Let the waiting labels look into a chunk, and take what beats what they have."""
    found = _look(index, labels, waiting)
    if found is not None:
        _take(*found, winners)


def _matches(
    chunk: Chunk, labels: Labels, waiting: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.integer], Matches] | None:
    return _look(chunk.load(), labels, waiting)


def _look(
    index: Index, labels: Labels, waiting: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.integer], Matches] | None:
    """Which of the waiting labels have a winner in a chunk, and the rows."""
    codes = labels.codes[waiting]
    here = index.holds(codes)
    if here is not None:
        waiting, codes = waiting[here], codes[here]
    if not len(waiting):
        return None
    cutoff = labels.cutoff[waiting]
    known_cutoff = cutoff if labels.known_cutoff is labels.cutoff else labels.known_cutoff[waiting]
    place, found = index.match(codes, cutoff, known_cutoff)
    asked = waiting[place]
    if labels.floor is not None:
        alive = found.event >= labels.floor[asked]
        if not alive.all():
            asked, found = asked[alive], found.where(alive)
    return asked, found


def _take(asked: npt.NDArray[np.integer], found: Matches, winners: Winners) -> None:
    better = _beats(found, winners, asked)
    if better is not None:
        asked, found = asked[better], found.where(better)
    winners.position[asked] = found.position
    winners.event[asked] = found.event
    winners.known[asked] = found.known


def _beats(found: Matches, winners: Winners, asked: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_] | None:
    """Greater by event time, then by known time, then by position; None if all are."""
    had = winners.position[asked]
    first = had < 0
    if first.all():
        return None
    event, known = winners.event[asked], winners.known[asked]
    by_known = (found.known > known) | ((found.known == known) & (found.position > had))
    return first | (found.event > event) | ((found.event == event) & by_known)


def _still_asking(
    labels: Labels, winners: Winners, waiting: npt.NDArray[np.int64], older: int | None
) -> npt.NDArray[np.int64]:
    """Labels for which an older chunk may hold something better: events up to `older`."""
    if older is None:
        return waiting[:0]
    least = winners.event[waiting]
    if labels.floor is not None:
        least = np.maximum(least, labels.floor[waiting])
    return waiting[least <= older]
