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
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.offline.chunk_grid import ChunkGrid
from tidemill.offline.chunk_index import ChunkIndex, Matches
from tidemill.offline.instants import NEVER, Instants
from tidemill.offline.radix import rough_order, stable_order
from tidemill.offline.run_index import RunIndex
from tidemill.offline.side_by_side import few_at_a_time, shares_of, side_by_side
from tidemill.offline.taking import taken, taken_side_by_side

Index = ChunkIndex | ChunkGrid | RunIndex
Integers = npt.NDArray[np.integer]
T = TypeVar("T")
_T = TypeVar("_T", bound=np.generic)
_DEEP = 1_000
"""Labels of one entity, on average, from which its rows are too many for a core's cache."""
_AHEAD = 1
"""Chunks read beyond those being read by the threads."""


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """How old a winner may be: events from `at - ttl` on are alive, in the unit of the lookup."""

    at: Instants
    ttl: int

    def floor(self, rows: npt.NDArray[np.integer] | None = None) -> Instants:
        """The oldest event each label, or each of some, may get."""
        at = self.at if rows is None else taken(self.at, rows)
        first = NEVER + self.ttl + 1
        if len(at) and at.min() < first:
            return np.where(at < first, NEVER, at - self.ttl)
        return at - self.ttl

    @property
    def oldest(self) -> int:
        """The oldest event that any label may get. There must be labels."""
        return max(NEVER, int(self.at.min()) - self.ttl)


class Take(Protocol):
    def __call__(self, values: npt.NDArray[_T], places: Integers, /) -> npt.NDArray[_T]: ...


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is asked, one entry for each row of a spine. A code of -1 (a null key) matches nothing."""

    codes: npt.NDArray[np.integer]
    cutoff: Instants
    known_cutoff: Instants
    lifetime: Lifetime | None = None
    first_codes: npt.NDArray[np.integer] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def at(self, rows: npt.NDArray[np.integer], *, take: Take = taken) -> Labels:
        """Some of the labels. What is one array stays one: cut-off and time of asking often are."""
        codes, cutoff = take(self.codes, rows), take(self.cutoff, rows)
        return Labels(
            codes=codes,
            cutoff=cutoff,
            known_cutoff=cutoff if self.known_cutoff is self.cutoff else take(self.known_cutoff, rows),
            lifetime=self._lifetime(lambda at: cutoff if at is self.cutoff else take(at, rows)),
            first_codes=(
                None
                if self.first_codes is None
                else codes
                if self.first_codes is self.codes
                else take(self.first_codes, rows)
            ),
        )

    def between(self, span: slice) -> Labels:
        """Some consecutive labels. Nothing is copied."""
        return Labels(
            codes=self.codes[span],
            cutoff=self.cutoff[span],
            known_cutoff=self.known_cutoff[span],
            lifetime=self._lifetime(lambda at: at[span]),
            first_codes=None if self.first_codes is None else self.first_codes[span],
        )

    def _lifetime(self, some: Callable[[Instants], Instants]) -> Lifetime | None:
        return None if self.lifetime is None else Lifetime(at=some(self.lifetime.at), ttl=self.lifetime.ttl)


@dataclass(frozen=True, kw_only=True)
class Winners:
    """For each label the winning row: its position in the source (-1: none), its event time and known time.

    `labels` are what they answer, one by one. They may be some of those that were asked, in another order: then the
    i-th is of row `order[i]`, and rows that are not among them have no winner.
    """

    labels: Labels
    position: npt.NDArray[np.int64]
    event: Instants
    known: Instants
    order: npt.NDArray[np.int64] | None = None

    @classmethod
    def none(cls, labels: Labels, order: npt.NDArray[np.int64] | None = None) -> Winners:
        return cls(
            labels=labels,
            position=np.full(len(labels), -1, np.int64),
            event=np.full(len(labels), NEVER, np.int64),
            known=np.full(len(labels), NEVER, np.int64),
            order=order,
        )

    def of(self, rows: npt.NDArray[np.int64]) -> Winners:
        """These winners, where their labels are some rows of what was asked."""
        return replace(self, order=rows if self.order is None else taken(rows, self.order))

    def by_row(self, values: npt.NDArray[np.int64], rows: int, *, without: int) -> npt.NDArray[np.int64]:
        """One value of each winner, in the order of the rows that were asked; rows not among them have another."""
        if self.order is None:
            return values
        found = np.full(rows, without, np.int64)
        found[self.order] = values
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
    """The winner of every label that has one. Exact for any order of rows and chunks."""
    asking = np.flatnonzero((labels.codes >= 0) & (labels.cutoff != NEVER))
    if len(asking) < len(labels):
        return find_winners(chunks, labels.at(asking), threads=threads).of(asking)
    if not len(labels):
        return Winners.none(labels)
    wanted = _that_can_matter(chunks, labels)
    if labels.first_codes is not None and _is_clustered(wanted, labels.first_codes):
        return _find_by_entity(wanted, labels, labels.first_codes, threads)
    winners = Winners.none(labels)
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
    chunks: Sequence[Chunk], labels: Labels, first_codes: npt.NDArray[np.integer], threads: int
) -> Winners:
    """Each chunk is asked by the labels of its entities only; chunks nobody asks are not read.

    Labels are brought into the order that the rows have, so that of what a chunk touches nearly everything lies side by
    side. The winners stay in that order: so lie the features that are gathered next.
    """
    ranges = [chunk.first_codes or (0, 0) for chunk in chunks]
    ends = np.cumsum(np.bincount(first_codes, minlength=max(end for _, end in ranges)))
    begins = np.concatenate([[0], ends])
    order = _by_entity(labels, first_codes, begins)
    winners = Winners.none(labels.at(order, take=taken_side_by_side), order)
    taking = Lock()

    def ask(chunk: Chunk, first: int, last: int) -> None:
        index = chunk.load()
        for some in few_at_a_time(last, start=first):
            match = _look(index, winners.labels.between(some))
            if match is not None:
                # Rows of one entity may lie on both sides of a border, and labels of it ask both chunks at one time.
                with taking:
                    _take(match[0] + some.start, match[1], winners)

    spans = [(int(begins[first]), int(begins[last])) for first, last in ranges]
    work = [partial(ask, chunk, *span) for chunk, span in zip(chunks, spans, strict=True) if span[0] < span[1]]
    for _ in _ahead(work, threads):
        pass
    return winners


def _by_entity(labels: Labels, first_codes: Integers, begins: Integers) -> npt.NDArray[np.int64]:
    """The order of the labels by code, each core sorting its share of the entities; `begins` counts by first code.

    Where very many labels ask for one entity they are also, roughly, in order of time.
    """
    borders = [0, *(int(np.searchsorted(begins, span.stop)) for span in shares_of(len(labels)))]
    borders[-1] = len(begins)
    deep = len(labels) > _DEEP * len(begins)

    def sorted_between(first: int, last: int) -> npt.NDArray[np.int64]:
        rows = np.flatnonzero((first_codes >= first) & (first_codes < last))
        after = rough_order(taken(labels.cutoff, rows)) if deep else None
        return taken(rows, stable_order(taken(labels.codes, rows), after=after))

    shares = [partial(sorted_between, first, last) for first, last in pairwise(borders)]
    return np.concatenate(side_by_side(shares, size=len(labels)))


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
    first = NEVER if labels.lifetime is None else labels.lifetime.oldest
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
    if labels.lifetime is not None:
        alive = found.event >= labels.lifetime.floor(place)
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
    if labels.lifetime is not None:
        least = np.maximum(least, labels.lifetime.floor(waiting))
    return waiting[least <= older]
