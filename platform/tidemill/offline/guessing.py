"""Binary search without the search: values that rise evenly, as times do, lie about where a straight line has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.offline.exact_search import upper_bound
from tidemill.offline.instants import Instants
from tidemill.offline.taking import taken

Integers = npt.NDArray[np.integer[Any]]

_STEPS = 4
"""How far from its guess a needle walks before it is searched for."""


class Stretches:
    """Stretches `[start, end)` of an array; within each, values rise. Each has at least one value."""

    def __init__(self, values: Instants, starts: Integers, ends: Integers) -> None:
        self._values = values
        self._starts = starts
        self._ends = ends
        self._first = values[starts].astype(np.float64)
        span = np.maximum(values[ends - 1].astype(np.float64) - self._first, 1.0)
        self._per_unit = (ends - 1 - starts) / span
        """How many places the line through a stretch's first and last value rises for each unit."""

    def last_at_most(self, stretch: Integers, limit: Instants) -> Integers:
        """For each needle the last place in its stretch whose value is at most its limit; `start - 1` without one."""
        low, high = taken(self._starts, stretch), taken(self._ends, stretch)
        place = self._guess(stretch, limit, low, high)
        self._walk_on(place, high, limit)
        self._walk_back(place, low, limit)
        return place

    def _guess(self, stretch: Integers, limit: Instants, low: Integers, high: Integers) -> Integers:
        """On the line through the stretch; then once more on a parallel through what was found there."""
        wanted, per_unit = limit.astype(np.float64), taken(self._per_unit, stretch)
        last = high - 1
        rise = (wanted - taken(self._first, stretch)) * per_unit
        place = np.clip(rise, 0, last - low).astype(np.int64)
        place += low
        wanted -= taken(self._values, place)
        wanted *= per_unit
        wanted += place
        return np.clip(np.floor(wanted, out=wanted), low, last).astype(np.int64)

    def _walk_on(self, place: Integers, high: Integers, limit: Instants) -> None:
        """Forward while the next value is at most the limit."""
        after = place + 1
        going = np.flatnonzero((after < high) & (taken(self._values, after) <= limit))
        for _ in range(_STEPS):
            if not len(going):
                return
            after = place[going] + 1
            place[going] = after
            after += 1
            going = going[(after < high[going]) & (taken(self._values, after) <= limit[going])]
        place[going] = upper_bound(self._values, place[going] + 1, high[going], limit[going]) - 1

    def _walk_back(self, place: Integers, low: Integers, limit: Instants) -> None:
        """Back while the value is greater than the limit."""
        going = np.flatnonzero((place >= low) & (taken(self._values, place) > limit))
        for _ in range(_STEPS):
            if not len(going):
                return
            before = place[going] - 1
            place[going] = before
            going = going[(before >= low[going]) & (taken(self._values, before) > limit[going])]
        place[going] = upper_bound(self._values, low[going], place[going], limit[going]) - 1
