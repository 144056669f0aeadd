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
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.offline.chunk_grid import ChunkGrid
from tidemill.offline.chunk_index import ChunkIndex, Matches
from tidemill.offline.instants import NEVER, Instants
from tidemill.offline.radix import rough_order, stable_order
from tidemill.offline.run_index import RunIndex
from tidemill.offline.side_by_side import shares_of, side_by_side
from tidemill.offline.taking import taken

Index = ChunkIndex | ChunkGrid | RunIndex
Integers = npt.NDArray[np.integer]
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

    def at(self, rows: npt.NDArray[np.integer]) -> Labels:
        """Some of the labels."""
        codes, cutoff = taken(self.codes, rows), taken(self.cutoff, rows)
        first_codes = self.first_codes
        if first_codes is not None:
            first_codes = codes if first_codes is self.codes else taken(first_codes, rows)
        return Labels(
            codes=codes,
            cutoff=cutoff,
            known_cutoff=cutoff if self.known_cutoff is self.cutoff else taken(self.known_cutoff, rows),
            floor=None if self.floor is None else taken(self.floor, rows),
            first_codes=first_codes,
        )


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

    def of(self, rows: npt.NDArray[np.integer], labels: int) -> Winners:
        """The winners of `labels` labels, of which these are those of some rows and the others have none."""
        found = Winners.none(labels)
        for whole, some in (
            (found.position, self.position),
            (found.event, self.event),
            (found.known, self.known),
        ):
            whole[rows] = some
        return found


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
    asking = np.flatnonzero((labels.codes >= 0) & (labels.cutoff != NEVER))
    if len(asking) < len(labels):
        return find_winners(chunks, labels.at(asking), threads=threads).of(asking, len(labels))
    winners = Winners.none(len(labels))
    if not len(labels):
        return winners
    wanted = _that_can_matter(chunks, labels)
    if labels.first_codes is not None and _is_clustered(wanted, labels.first_codes):
        _find_by_entity(wanted, labels, labels.first_codes, winners, threads)
        return winners
    queue = _Queue(labels.cutoff)
    for place, (chunk, index) in enumerate(_loaded(wanted, threads)):
        older = wanted[place + 1].greatest if place + 1 < len(wanted) else None
        waiting = queue.admit(chunk.least)
        if not len(waiting):
            continue
        match = _look(index, labels.at(waiting))
        if match is not None:
            _take(waiting[match[0]], match[1], winners)
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
    winners: Winners,
    threads: int,
) -> None:
    """Each chunk is asked by the labels of its entities only; chunks nobody asks are not read.

    Labels are brought into the order that the rows have, a share of them on each core, so that of what a chunk touches
    nearly everything lies side by side.
    """
    ranges = [chunk.first_codes or (0, 0) for chunk in chunks]
    codes = max(end for _, end in ranges)
    spans = shares_of(len(labels))
    ordered = side_by_side([partial(_Ordered.of, labels, first_codes, span, codes) for span in spans], size=len(labels))
    taking = Lock()

    def ask(chunk: Chunk, asking: Integers) -> None:
        match = _look(chunk.load(), labels.at(asking))
        if match is not None:
            asked = taken(asking, match[0])
            # Rows of one entity may lie on both sides of a border, and labels of it ask both chunks at one time.
            with taking:
                _take(asked, match[1], winners)

    asked = [np.concatenate([share.between(first, last) for share in ordered]) for first, last in ranges]
    work = [partial(ask, chunk, asking) for chunk, asking in zip(chunks, asked, strict=True) if len(asking)]
    for _ in _ahead(work, threads):
        pass


@dataclass(frozen=True, kw_only=True)
class _Ordered:
    """Labels by code and, roughly, cut-off; those whose first code is c begin at `begins[c]`."""

    order: Integers
    begins: Integers

    @classmethod
    def of(cls, labels: Labels, first_codes: Integers, span: slice, codes: int) -> _Ordered:
        """Some consecutive labels. First codes are less than `codes`, or nobody asks for them."""
        order = stable_order(labels.codes[span], after=rough_order(labels.cutoff[span]))
        order += span.start
        ends = np.cumsum(np.bincount(first_codes[span], minlength=codes))
        return cls(order=order, begins=np.concatenate([[0], ends]))

    def between(self, first: int, last: int) -> Integers:
        """The labels with first codes from `first` to before `last`."""
        return self.order[self.begins[first] : self.begins[last]]


class _Queue:
    """Labels that still ask. A label joins at the first chunk that is not wholly after its cut-off."""

    def __init__(self, cutoffs: Instants) -> None:
        self._by_cutoff = pl.Series(cutoffs).arg_sort().to_numpy().astype(np.int64, copy=False)
        self._cutoffs = taken(cutoffs, self._by_cutoff)
        self._joined = len(cutoffs)
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


def _that_can_matter(chunks: Sequence[Chunk], labels: Labels) -> list[Chunk]:
    """The chunks that hold times anybody may see, newest first."""
    last = int(labels.cutoff.max())
    first = NEVER if labels.floor is None else int(labels.floor.min())
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


def _look(index: Index, labels: Labels) -> tuple[Integers, Matches] | None:
    """Which of these labels have a winner in a chunk, by their places, and the rows."""
    here = index.holds(labels.codes)
    asking = None if here is None or here.all() else np.flatnonzero(here)
    if asking is not None:
        labels = labels.at(asking)
    if not len(labels):
        return None
    place, found = index.match(labels.codes, labels.cutoff, labels.known_cutoff)
    if labels.floor is not None:
        alive = found.event >= taken(labels.floor, place)
        if not alive.all():
            place, found = place[alive], found.at(alive)
    return place if asking is None else taken(asking, place), found


def _take(asked: Integers, found: Matches, winners: Winners) -> None:
    """Note what was found for the labels that ask, where it beats what they have."""
    worse = _that_lose(asked, found, winners)
    if len(worse):
        better = np.ones(len(asked), bool)
        better[worse] = False
        asked, found = asked[better], found.at(better)
    winners.position[asked] = found.position
    winners.event[asked] = found.event
    winners.known[asked] = found.known


def _that_lose(asked: Integers, found: Matches, winners: Winners) -> Integers:
    """Which of the rows found are not greater, by event time, then known time, then position, than what was there."""
    again = np.flatnonzero(winners.position[asked] >= 0)
    if not len(again):
        return again
    rivals, found = asked[again], found.at(again)
    event, known = winners.event[rivals], winners.known[rivals]
    by_known = (found.known > known) | ((found.known == known) & (found.position > winners.position[rivals]))
    return again[~((found.event > event) | ((found.event == event) & by_known))]


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
