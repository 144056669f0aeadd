"""The rows of one chunk, ordered by entity and event time as packed integers, and the search in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.offline.exact_search import last_known
from tidemill.offline.instants import Instants
from tidemill.offline.radix import stable_order
from tidemill.offline.taking import taken
from tidemill.offline.walk_back import settle

_RANK_BITS = 32
_RANK = (1 << _RANK_BITS) - 1
_SELDOM = 8
"""One needle in so many may be out of order before they are sorted."""

Integers = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Rows found in a chunk: global position, event time, known time."""

    position: Integers
    event: Instants
    known: Instants

    def at(self, rows: Mask | Integers) -> Matches:
        return Matches(position=self.position[rows], event=self.event[rows], known=self.known[rows])


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a source as the lookup sees them. `codes` hold no -1 and are less than `size`.

    `known` is None where the source has no known time. The row at place i has position `offset + i`, or
    `offset + places[i]` where rows were left out.
    """

    codes: npt.NDArray[np.integer]
    event: Instants
    known: Instants | None
    offset: int
    size: int
    places: Integers | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, order: Integers) -> Rows:
        return replace(
            self,
            codes=self.codes[order],
            event=self.event[order],
            known=None if self.known is None else self.known[order],
            places=order if self.places is None else self.places[order],
        )

    def positions(self, place: Integers) -> Integers:
        return (place if self.places is None else taken(self.places, place)) + self.offset

    def matches(self, place: Integers) -> Matches:
        event = taken(self.event, place)
        known = event if self.known is None else taken(self.known, place)
        return Matches(position=self.positions(place), event=event, known=known)


class ChunkIndex:
    """Searchable rows of a chunk, in any order.

    `packed` rises; its entry i stands for the row of rank `self._rank(i)`, ranks counting in event order.
    """

    def __init__(self, rows: Rows) -> None:
        self._size = rows.size
        self._present = _present(rows)
        self._order: Integers | None = None
        if not self._pack_by_time(rows) and not _rises(rows.event):
            self._order = np.argsort(rows.event, kind="stable")
            rows = rows.take(self._order)
        self._rows = rows
        if not hasattr(self, "_packed"):
            self._pack_by_rank(rows.codes)

    def holds(self, codes: Integers) -> Mask | None:
        """Which of these entities have any row here; None if all do."""
        return None if self._present is None else self._present[codes]

    def match(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> tuple[Integers, Matches]:
        """The winner within this chunk of each label that has one: the labels' places, and their rows."""
        order, rank = self._match(codes, cutoff, known_cutoff)
        return order, self._rows.matches(rank)

    def match_ranks(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> Integers:
        """For each label the place of its winner among the rows as they were given; -1 without one."""
        order, rank = self._match(codes, cutoff, known_cutoff)
        found = np.full(len(codes), -1, np.int64)
        found[order] = rank if self._order is None else self._order[rank]
        return found

    def match_hard(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> Integers:
        """`match_ranks` for labels that are known to lie deep: without walking first."""
        place = self._search_exactly(codes, cutoff, known_cutoff)
        rank = self._rank(place)
        return np.where(place >= 0, rank if self._order is None else self._order[rank], -1)

    def _match(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> tuple[Integers, Integers]:
        if not len(self._packed):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        needles = self._needles(codes.astype(np.int64, copy=False), cutoff)
        order: Integers | None = None
        if not _nearly_rises(needles):
            order = pl.Series(needles).arg_sort().to_numpy().astype(np.int64, copy=False)
            needles, codes = taken(needles, order), taken(codes, order)
            cutoff, known_cutoff = taken(cutoff, order), taken(known_cutoff, order)
        place = np.searchsorted(self._packed, needles, side="left") - 1
        place[(place < 0) | ((taken(self._packed, place) >> self._shift) != codes)] = -1
        if self._rows.known is not None:
            hard = settle(_Neighbours(self, codes), place, known_cutoff)
            if hard.any():
                place[hard] = self._search_exactly(codes[hard], cutoff[hard], known_cutoff[hard])
        found = np.flatnonzero(place >= 0)
        return found if order is None else taken(order, found), self._rank(taken(place, found))

    def known_at(self, place: Integers) -> Instants:
        """The known times of the rows at places of `packed`, of rows that have them."""
        assert self._rows.known is not None  # noqa: S101 - asked for only where there are any
        return taken(self._rows.known, self._rank(place))

    def codes_at(self, place: Integers) -> Integers:
        return taken(self._packed, place) >> self._shift

    def same_time(self, before: Integers, place: Integers, codes: Integers) -> Mask:
        """Whether rows are of the same entity and event time as those at `place`, which are of these codes."""
        if not self._by_rank:
            return taken(self._packed, before) == taken(self._packed, place)
        same = taken(self._rows.event, self._rank(before)) == taken(self._rows.event, self._rank(place))
        return same & (self.codes_at(before) == codes)

    def _search_exactly(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> Integers:
        """For the few (deep ties, long delays): search by known time among completely ordered rows."""
        order, owner, event, known = self._complete
        found = last_known(owner, event, known, codes, cutoff, known_cutoff)
        return np.where(found >= 0, order[found], -1)

    @cached_property
    def _complete(self) -> tuple[Integers, Integers, Instants, Instants]:
        """All rows by entity, event time, known time and position: their places in `packed`, and those three."""
        if self._rows.known is None:
            raise ValueError("rows without known times have nothing to search for")
        rank = self._rank(np.arange(len(self._packed)))
        owner, event, known = self._packed >> self._shift, self._rows.event[rank], self._rows.known[rank]
        order = _ties_by_known(owner, event, known)
        return order, owner[order], event[order], known[order]

    def _pack_by_rank(self, codes: npt.NDArray[np.integer]) -> None:
        """`code << 32 | rank`, risen: rows of one code side by side in event order."""
        order = stable_order(codes)
        self._packed = codes[order].astype(np.int64, copy=False)
        self._packed <<= _RANK_BITS
        self._packed |= order
        self._shift = _RANK_BITS
        self._by_rank = True

    def _pack_by_time(self, rows: Rows) -> bool:
        """`code << bits | time`, for rows that are already in this order: nothing is sorted. False if they are not."""
        if not len(rows) or not _rises(rows.codes):
            return False
        base, last = int(rows.event.min()), int(rows.event.max())
        step, bits = 1, max(1, (last - base + 1).bit_length())
        if bits + self._size.bit_length() > 62:
            step = 1_000_000
            bits = max(1, ((last - base) // step + 1).bit_length())
            if bits + self._size.bit_length() > 62 or ((rows.event - base) % step).any():
                return False
        packed = _shifted(rows, bits, base if step == 1 else 0)
        packed += rows.event if step == 1 else (rows.event - base) // step
        if not _rises(packed):
            return False
        self._packed, self._shift, self._by_rank = packed, bits, False
        self._base, self._step, self._last = base, step, (last - base) // step
        return True

    def _needles(self, codes: Integers, cutoff: Instants) -> Integers:
        """For each label the packed value just above all it may see."""
        if self._by_rank:
            return (codes << self._shift) | self._rank_after(cutoff)
        offset = np.clip(cutoff, self._base - self._step, self._base + (self._last + 1) * self._step) - self._base
        return (codes << self._shift) + np.clip(offset // self._step, -1, self._last) + 1

    def _rank_after(self, cutoff: Instants) -> Integers:
        """How many rows have `event <= cutoff`; equal times are searched once."""
        starts = np.flatnonzero(self._rows.event[1:] != self._rows.event[:-1]) + 1
        if len(starts) > len(self._rows) // 8:
            return np.searchsorted(self._rows.event, cutoff, side="right")
        times = self._rows.event[np.concatenate([[0], starts])]
        ends = np.concatenate([[0], starts, [len(self._rows)]])
        return ends[np.searchsorted(times, cutoff, side="right")]

    def _rank(self, place: Integers) -> Integers:
        return taken(self._packed, place) & _RANK if self._by_rank else place


class _Neighbours:
    """The rows of an index that knows known times, for labels of these codes."""

    def __init__(self, index: ChunkIndex, codes: Integers) -> None:
        self._index, self._codes = index, codes

    def known(self, place: Integers) -> Instants:
        return self._index.known_at(place)

    def inside(self, place: Integers, labels: Integers | slice) -> Mask:
        return (place >= 0) & (self._index.codes_at(place) == self._codes[labels])

    def tied(self, before: Integers, place: Integers, labels: Integers | slice) -> Mask:
        return (before >= 0) & self._index.same_time(before, place, self._codes[labels])


def _present(rows: Rows) -> Mask | None:
    """Whether each entity has any row; None if all have."""
    present = np.zeros(rows.size, bool)
    present[rows.codes] = True
    return None if present.all() else present


def _nearly_rises(needles: Integers) -> bool:
    """Whether needles lie nearly in order: searching is correct in any order, but fast only in this one."""
    return int((needles[1:] < needles[:-1]).sum()) * _SELDOM <= len(needles)


def _ties_by_known(owner: Integers, event: Instants, known: Instants) -> Integers:
    """The order by known time within rows of equal owner and event, which lie together; all else stays in place."""
    same = (owner[1:] == owner[:-1]) & (event[1:] == event[:-1])
    order = np.arange(len(owner))
    wrong = np.flatnonzero(same & (known[1:] < known[:-1]))
    if len(wrong):
        group = np.concatenate([[0], np.cumsum(~same)])
        disordered = np.zeros(group[-1] + 1, bool)
        disordered[group[wrong]] = True
        rows = np.flatnonzero(disordered[group])
        order[rows] = rows[np.lexsort((known[rows], group[rows]))]
    return order


def _shifted(rows: Rows, bits: int, less: int) -> Integers:
    """`(code << bits) - less` of each row."""
    packed = rows.codes.astype(np.int64)
    packed <<= bits
    packed -= less
    return packed


def _rises(values: npt.NDArray[np.integer]) -> bool:
    return bool((values[1:] >= values[:-1]).all())
