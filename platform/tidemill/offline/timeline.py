"""Events in order of key and time, and binary search in them.

An event is two small integers: the code of its key, and its rank in time. `code << 32 | rank` sorts as one int64, so
the events of one key form a slice in time order, and any stretch of time of any key is a slice `[lo, hi)`.

Events are kept in classes of lateness (known time minus event time). Within a class whose lateness lies in (a, b] every
event at or before `K - b` was known at `K`, and none after `K - a`: only the stretch between has to be looked at event
by event. Events known at once, usually nearly all, form a class of their own in which nothing has to be looked at.

Classes with few events are taken together, unless they are asked to be `fixed`: then what class an event belongs to,
and what of it is looked at event by event, depends on that event alone, as does the order in which floats are added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from tidemill.definitions.windows import FAR_FUTURE, FAR_PAST
from tidemill.offline.radix import stable_order
from tidemill.offline.side_by_side import side_by_side

RANK_BITS = 32
_RANK_MASK = (1 << RANK_BITS) - 1
_MINUTE = 60_000_000
_LATENESS_STEPS = tuple(_MINUTE * 4**step for step in range(9))
_EDGES = (FAR_PAST, 0, *_LATENESS_STEPS, FAR_FUTURE)
_FIXED_CLASSES = tuple(pairwise(_EDGES))
_SMALL_CLASS = 0.05
_MANY_EVENTS = 3_000_000


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The rows that ask, in order of (code, upto). `order[i]` is the position of row i among the key rows."""

    order: np.ndarray
    code: np.ndarray
    upto: np.ndarray
    known_upto: np.ndarray
    by_time: np.ndarray
    """Positions of the labels in order of `upto`: needles are searched in the order of the hay."""

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def packed_code(self) -> np.ndarray:
        return self.code.astype(np.int64) << RANK_BITS

    @classmethod
    def of(cls, code: np.ndarray, upto: np.ndarray, known_upto: np.ndarray) -> Labels:
        """Labels whose code is not negative (a negative one matches nothing)."""
        rows = np.flatnonzero(code >= 0)
        in_time = rows[stable_order(upto[rows])]
        by_code = stable_order(code[in_time])
        order = in_time[by_code]
        by_time = np.empty(len(order), dtype=np.int64)
        by_time[by_code] = np.arange(len(order))
        return cls(
            order=order,
            code=code[order],
            upto=np.clip(upto[order], FAR_PAST, FAR_FUTURE),
            known_upto=np.clip(known_upto[order], FAR_PAST, FAR_FUTURE),
            by_time=by_time,
        )


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The events of one lateness class: `rank` in order of (code, time), and times by position in it.

    A rank is an event's position among all events in time order, so it also tells which of two events comes first, and
    finds its values.
    """

    packed: np.ndarray
    event_times: np.ndarray
    ranks_in_time: np.ndarray | None
    times: np.ndarray
    known: np.ndarray | None
    shortest_lateness: int
    longest_lateness: int

    @cached_property
    def rank(self) -> np.ndarray:
        return self.packed & _RANK_MASK

    def ranks_at(self, positions: np.ndarray) -> np.ndarray:
        return self.packed[positions] & _RANK_MASK

    def starts_of(self, codes: np.ndarray) -> np.ndarray:
        """Where the events of these codes begin, between 0 and the number of events."""
        return np.concatenate(([0], np.searchsorted(self.packed, codes << RANK_BITS), [len(self.packed)]))

    def between(self, first: int, last: int) -> Timeline:
        """Some of the events; those of a key must stay together. Nothing is copied."""
        return replace(self, packed=self.packed[first:last])

    def positions(self, labels: Labels, instants: np.ndarray, *, side: Literal["left", "right"]) -> np.ndarray:
        """For each label the first position in its key's slice whose time is >= (`left`) or > (`right`) its instant."""
        ranks = np.empty(len(labels), dtype=np.int64)
        ranks[labels.by_time] = np.searchsorted(self.times, instants[labels.by_time], side=side)
        if self.ranks_in_time is not None:
            padded = np.append(self.ranks_in_time, _RANK_MASK)
            ranks = padded[ranks]
        return np.searchsorted(self.packed, labels.packed_code | ranks)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The slices of one window in one class, for every label: `[lo, sure)` counts, `[sure, unsure)` may count."""

    lo: np.ndarray
    sure: np.ndarray
    unsure: np.ndarray

    def of(self, labels: slice, begin: int) -> Reach:
        """The slices of some labels, counted from the event at `begin`."""
        return Reach(lo=self.lo[labels] - begin, sure=self.sure[labels] - begin, unsure=self.unsure[labels] - begin)


def reaches(timeline: Timeline, labels: Labels, lower_bounds: list[np.ndarray]) -> list[Reach]:
    """The slices of each window, given the windows' lower bounds."""
    known_for_sure = np.minimum(labels.upto, _before(labels.known_upto, timeline.longest_lateness))
    perhaps_known = np.minimum(labels.upto, _before(labels.known_upto, timeline.shortest_lateness))
    positions = partial(timeline.positions, labels)
    searches = [partial(positions, known_for_sure, side="right")]
    searches += [partial(positions, bound, side="left") for bound in lower_bounds]
    if bool((perhaps_known > known_for_sure).any()):
        searches.append(partial(positions, perhaps_known, side="right"))
    sure, *found = side_by_side(searches, size=len(labels))
    unsure = found.pop() if len(found) > len(lower_bounds) else sure
    after = [np.maximum(lo, sure) for lo in found]
    return [Reach(lo=lo, sure=end, unsure=np.maximum(unsure, end)) for lo, end in zip(found, after, strict=True)]


def timelines(code: np.ndarray, event: np.ndarray, known: np.ndarray | None, *, fixed: bool = False) -> list[Timeline]:
    """Classes of lateness over events that are in time order; `known` is None where every event is known at once."""
    packed = _by_code(code)
    if known is None or not bool((known > event).any()):
        return [_punctual(packed, event, known)]
    lateness = known - event
    found = []
    for shortest, longest in _FIXED_CLASSES if fixed else _classes(lateness):
        inside = np.flatnonzero((lateness > shortest) & (lateness <= longest))
        if len(inside):
            belongs = np.zeros(len(code), dtype=bool)
            belongs[inside] = True
            mine = packed[belongs[packed & _RANK_MASK]]
            bounds = (shortest + 1, longest) if fixed else (int(lateness[inside].min()), int(lateness[inside].max()))
            found.append(_late(mine, inside, event, known, bounds))
    return found


def _by_code(code: np.ndarray) -> np.ndarray:
    """`code << 32 | rank`, sorted.

    Sorting digits takes a fifth of the time of sorting numbers. Of many events a counting sort by code, which leaves
    ranks in their order, takes a third of that again, and turning coordinates into compressed rows is one.
    """
    if len(code) < _MANY_EVENTS:
        order = stable_order(code)
        packed = code[order].astype(np.int64)
        packed <<= RANK_BITS
        packed |= order
        return packed
    from scipy.sparse import coo_array

    ranks = np.arange(len(code), dtype=np.int32 if len(code) < 2**31 else np.int64)
    shape = (int(code.max()) + 1, len(code))
    rows = coo_array((np.ones(len(code), dtype=np.int8), (code.astype(ranks.dtype), ranks)), shape=shape).tocsr()
    packed = np.repeat(np.arange(shape[0], dtype=np.int64) << RANK_BITS, np.diff(rows.indptr))
    packed |= rows.indices
    return packed


def _punctual(packed: np.ndarray, event: np.ndarray, known: np.ndarray | None) -> Timeline:
    earliest = 0 if known is None or len(event) == 0 else int((known - event).min())
    return Timeline(
        packed=packed,
        event_times=event,
        ranks_in_time=None,
        times=event,
        known=known,
        shortest_lateness=earliest,
        longest_lateness=0,
    )


def _late(
    packed: np.ndarray, inside: np.ndarray, event: np.ndarray, known: np.ndarray, bounds: tuple[int, int]
) -> Timeline:
    return Timeline(
        packed=packed,
        event_times=event,
        ranks_in_time=inside,
        times=event[inside],
        known=known,
        shortest_lateness=bounds[0],
        longest_lateness=bounds[1],
    )


def _classes(lateness: np.ndarray) -> list[tuple[int, int]]:
    """Bounds (shortest, longest] of the classes; a class too small to be worth its searches joins the next."""
    edges = _EDGES
    sizes = np.histogram(lateness, bins=np.array(edges, dtype=np.float64) + 0.5)[0]
    found, shortest, waiting = [], edges[0], 0
    for longest, size in zip(edges[1:], sizes, strict=True):
        waiting += int(size)
        if longest == FAR_FUTURE or (waiting >= _SMALL_CLASS * len(lateness) and waiting) or longest == 0:
            found.append((shortest, longest))
            shortest, waiting = longest, 0
    return found


def _before(instants: np.ndarray, lateness: int) -> np.ndarray:
    """`instants - lateness`, clipped; the bounds are moved instead of the result, which could overflow."""
    ends = np.iinfo(np.int64)
    least, greatest = max(FAR_PAST + lateness, ends.min), min(FAR_FUTURE + lateness, ends.max)
    return np.clip(instants, least, greatest) - lateness


def in_time_order(event: np.ndarray, known: np.ndarray | None) -> np.ndarray | None:
    """The stable order by (event time, known time), or None where the events lie so already."""
    if len(event) < 2:
        return None
    earlier, later = event[:-1], event[1:]
    if known is None:
        if bool((later >= earlier).all()):
            return None
        return pl.Series(event).to_frame("event").select(pl.arg_sort_by("event", maintain_order=True)).to_numpy()[:, 0]
    if bool(((later > earlier) | ((later == earlier) & (known[1:] >= known[:-1]))).all()):
        return None
    frame = pl.DataFrame({"event": event, "known": known})
    return frame.select(pl.arg_sort_by("event", "known", maintain_order=True)).to_numpy()[:, 0].astype(np.int64)
