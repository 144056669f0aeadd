"""The rows of one chunk that lie in runs, one of each key, in event order: looked up run by run, as they lie.

So does a file clustered by key have them. A label's run is found by its code, and its row within the run's times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tidemill.offline.chunk_index import ChunkIndex, Integers, Mask, Matches, Rows
from tidemill.offline.guessing import Stretches
from tidemill.offline.instants import NEVER, Instants
from tidemill.offline.key_runs import Runs
from tidemill.offline.taking import taken
from tidemill.offline.walk_back import settle


class RunIndex:
    """Rows in runs. Answers exactly as `ChunkIndex` does."""

    def __init__(self, runs: Runs, event: Instants, known: Instants | None, *, offset: int, size: int) -> None:
        self._runs, self._event, self._known = runs, event, known
        self._offset, self._size = offset, size
        asked = np.flatnonzero(runs.codes >= 0)
        self._starts, ends = runs.starts[asked], runs.ends[asked]
        self._times = Stretches(event, self._starts, ends)
        codes = runs.codes[asked]
        self._first_code = int(codes[0])
        self._run_of = np.full(int(codes[-1]) - self._first_code + 1, -1, np.int64)
        self._run_of[codes - self._first_code] = np.arange(len(codes))

    @classmethod
    def of(cls, runs: Runs, event: Instants, known: Instants | None, *, offset: int, size: int) -> RunIndex | None:
        """The index of these rows; None where a key has several runs, or times that are null or do not rise."""
        runs = runs.joined()
        codes = runs.codes[runs.codes >= 0]
        if not len(codes) or not (codes[1:] > codes[:-1]).all() or (event[runs.starts] == NEVER).any():
            return None
        falls = np.flatnonzero(event[1:] < event[:-1]) + 1
        if not np.isin(falls, runs.starts, assume_unique=True).all():
            return None
        return cls(runs, event, known, offset=offset, size=size)

    def holds(self, codes: Integers) -> Mask | None:  # noqa: ARG002 - asked of every index
        """Nothing: which of these entities have any row here is what `match` finds first."""
        return None

    def match(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> tuple[Integers, Matches]:
        """The winner within this chunk of each label that has one: the labels' places, and their rows."""
        place = self._places(codes, cutoff, known_cutoff)
        found = np.flatnonzero(place >= 0)
        place = place if len(found) == len(place) else place[found]
        event = taken(self._event, place)
        known = event if self._known is None else taken(self._known, place)
        return found, Matches(position=place + self._offset, event=event, known=known)

    def _places(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> Integers:
        """The winning row of each label, -1 without one."""
        run = self._runs_of(codes)
        if len(run) and run.min() < 0:
            asking = np.flatnonzero(run >= 0)
            place = np.full(len(run), -1, np.int64)
            if len(asking):
                place[asking] = self._places(codes[asking], cutoff[asking], known_cutoff[asking])
            return place
        place = self._times.last_at_most(run, cutoff)
        low = taken(self._starts, run)
        place[place < low] = -1
        if self._known is not None:
            hard = settle(_Neighbours(low=low, event=self._event, known_times=self._known), place, known_cutoff)
            if hard.any():
                place[hard] = self._search_exactly(codes[hard], cutoff[hard], known_cutoff[hard])
        return place

    def _runs_of(self, codes: Integers) -> Integers:
        """The run of each code, -1 where it has none."""
        places = codes.astype(np.int64, copy=False) - self._first_code
        if len(places) and (places.min() < 0 or places.max() >= len(self._run_of)):
            return np.where((places < 0) | (places >= len(self._run_of)), -1, taken(self._run_of, places))
        return taken(self._run_of, places)

    def _search_exactly(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> Integers:
        """For the few (deep ties, long delays): the packed index of the rows that are asked for."""
        packed, rows = self._packed
        found = packed.match_hard(codes, cutoff, known_cutoff)
        return np.where(found >= 0, rows[found], -1)

    @cached_property
    def _packed(self) -> tuple[ChunkIndex, Integers]:
        codes = self._runs.spread(self._runs.codes)
        rows = np.flatnonzero(codes >= 0)
        whole = Rows(codes=codes, event=self._event, known=self._known, offset=self._offset, size=self._size)
        return ChunkIndex(whole.take(rows)), rows


@dataclass(frozen=True, kw_only=True)
class _Neighbours:
    """The rows of runs, for labels whose runs begin at `low`."""

    low: Integers
    event: Instants
    known_times: Instants

    def known(self, place: Integers) -> Instants:
        return taken(self.known_times, place)

    def inside(self, place: Integers, labels: Integers | slice) -> Mask:
        return place >= self.low[labels]

    def tied(self, before: Integers, place: Integers, labels: Integers | slice) -> Mask:
        return (before >= self.low[labels]) & (taken(self.event, before) == taken(self.event, place))
