"""One aggregated column over all windows and classes of lateness, for all labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl

from tidemill.definitions.distinct import REGISTERS, estimate, registers_of
from tidemill.definitions.measures import measures
from tidemill.definitions.partials import Partials
from tidemill.definitions.windows import ColumnNeeds
from tidemill.offline.exact_sums import Limbs
from tidemill.offline.side_by_side import side_by_side
from tidemill.offline.slices import Moments, Slices, extremes, moments, pairs, runs, totals
from tidemill.offline.timeline import RANK_BITS, Labels, Reach, Timeline

_LABELS_AT_ONCE = 16_384
_EVENTS_AT_ONCE = 1 << 20
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Column:
    """An aggregated column by rank: which values there are, their numbers, their registers of the sketch.

    Arrays are as long as the history; where `present` is False they hold 0. None where nobody asks.
    """

    needs: ColumnNeeds
    present: np.ndarray | None
    values: np.ndarray | None
    registers: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, needs: ColumnNeeds, columns: pl.DataFrame) -> Column:
        if not needs.column:
            return cls(needs=needs, present=None, values=None, registers=None)
        series = columns[needs.column]
        present = series.is_not_null().to_numpy() if series.null_count() else None
        filled = series if present is None else series.drop_nulls()
        return cls(
            needs=needs,
            present=present,
            values=_spread_out(measures(filled, needs), present) if needs.has_values else None,
            registers=_registers(filled, present) if needs.distinct else None,
        )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A column's values in one class, nulls left out: slices count positions among what is left."""

    rank: np.ndarray
    values: np.ndarray | None
    sure: list[Slices]
    unsure: list[Slices]
    known: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class _Share:
    """Some keys: their events and labels, which lie together, and the slices counted among just these events."""

    classes: list[Timeline]
    slices: list[list[Reach]]
    known_upto: np.ndarray


def partials_of(
    column: Column,
    classes: list[Timeline],
    slices: list[list[Reach]],
    labels: Labels,
    windows: list[tuple[int, int]],
) -> list[Partials]:
    """Partial aggregates of `column`, for each window, in the labels' order. `slices[class][window]`.

    Keys are shared out, and their shares taken side by side: what is computed on the way stays in the caches.
    """
    limbs = None
    if column.needs.total and column.values is not None:
        terms = sum(max((int((one.unsure - one.lo).max(initial=0)) for one in reach), default=0) for reach in slices)
        limbs = Limbs.of(column.values, terms=terms)
    work = [partial(_partials_of_share, column, limbs, one, windows) for one in _shares(classes, slices, labels)]
    found = side_by_side(work, size=sum(len(timeline.packed) for timeline in classes))
    return [_joined([of_share[number] for of_share in found]) for number in range(len(windows))]


def _shares(classes: list[Timeline], slices: list[list[Reach]], labels: Labels) -> Iterator[_Share]:
    """All keys in shares of about equally many events; a key is never divided."""
    largest = max(classes, key=lambda timeline: len(timeline.packed), default=None)
    count = 1 if largest is None else max(len(largest.packed) // _EVENTS_AT_ONCE, 1)
    borders = [] if largest is None else largest.packed[len(largest.packed) * np.arange(1, count) // count]
    codes = np.unique(np.asarray(borders, dtype=np.int64) >> RANK_BITS)
    starts = np.concatenate(([0], np.searchsorted(labels.code, codes), [len(labels)]))
    events = [timeline.starts_of(codes) for timeline in classes]
    for place, (first, last) in enumerate(pairwise(starts)):
        mine = slice(first, last)
        begins = [int(edges[place]) for edges in events]
        yield _Share(
            classes=[
                timeline.between(begin, int(edges[place + 1]))
                for timeline, edges, begin in zip(classes, events, begins, strict=True)
            ],
            slices=[[one.of(mine, begin) for one in reach] for reach, begin in zip(slices, begins, strict=True)],
            known_upto=labels.known_upto[mine],
        )


def _partials_of_share(
    column: Column, limbs: Limbs | None, share: _Share, windows: list[tuple[int, int]]
) -> list[Partials]:
    parts = [_part(column, timeline, reach) for timeline, reach in zip(share.classes, share.slices, strict=True)]
    sums = [_Sums.nothing(column, limbs, len(share.known_upto)) for _ in windows]
    for part in parts:
        _add_sure(sums, part, column.needs)
        for found, unsure in zip(sums, part.unsure, strict=True):
            _add_unsure(found, part, unsure, share.known_upto)
    answers = [found.partials(column) for found in sums]
    if column.needs.distinct:
        for number, (answer, window) in enumerate(zip(answers, windows, strict=True)):
            answer.distinct = _distinct(column, parts, number, share, window)
    return answers


def _joined(parts: list[Partials]) -> Partials:
    """The partials of one window from those of the shares."""
    if len(parts) == 1:
        return parts[0]
    columns = {
        field.name: [getattr(part, field.name) for part in parts]
        for field in fields(Partials)
        if getattr(parts[0], field.name) is not None
    }
    return Partials(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def newest_ranks(classes: list[Timeline], slices: list[Reach], labels: Labels) -> np.ndarray:
    """The rank of the newest event that counts, -1 where none does."""
    newest = np.full(len(labels), -1, dtype=np.int64)
    for timeline, reach in zip(classes, slices, strict=True):
        some = reach.sure > reach.lo
        newest[some] = np.maximum(newest[some], timeline.ranks_at(reach.sure[some] - 1))
        if timeline.known is None:
            continue
        for rows, positions in _known_pairs(
            timeline.rank, timeline.known, (reach.sure, reach.unsure), labels.known_upto
        ):
            starts, mine = runs(rows)
            newest[mine] = np.maximum(newest[mine], np.maximum.reduceat(timeline.rank[positions], starts))
    return newest


@dataclass(kw_only=True)
class _Sums:
    """What has been added up so far of one column in one window; merged class by class."""

    count: np.ndarray
    limbs: Limbs | None
    total: list[np.ndarray]
    lowest: np.ndarray | None
    highest: np.ndarray | None
    moments: Moments | None
    first: np.ndarray | None
    last: np.ndarray | None

    @classmethod
    def nothing(cls, column: Column, limbs: Limbs | None, size: int) -> _Sums:
        needs = column.needs
        dtype = np.int64 if needs.whole else np.float64
        return cls(
            count=np.zeros(size, dtype=np.int64),
            limbs=limbs,
            total=[] if limbs is None else [np.zeros(size, dtype=np.int64) for _ in range(limbs.width)],
            lowest=np.zeros(size, dtype=dtype) if needs.lowest else None,
            highest=np.zeros(size, dtype=dtype) if needs.highest else None,
            moments=Moments.nothing(size) if needs.spread else None,
            first=np.full(size, _NEVER) if needs.first else None,
            last=np.full(size, -1, dtype=np.int64) if needs.last else None,
        )

    def merge(self, where: np.ndarray, count: np.ndarray, lowest: np.ndarray | None,
              highest: np.ndarray | None, first: np.ndarray, last: np.ndarray) -> None:  # fmt: skip
        """Add windows of which each holds something; `where` are their labels, each at most once."""
        fresh = self.count[where] == 0
        self.count[where] += count
        if self.lowest is not None and lowest is not None:
            self.lowest[where] = np.where(fresh, lowest, np.minimum(self.lowest[where], lowest))
        if self.highest is not None and highest is not None:
            self.highest[where] = np.where(fresh, highest, np.maximum(self.highest[where], highest))
        if self.first is not None:
            self.first[where] = np.minimum(self.first[where], first)
        if self.last is not None:
            self.last[where] = np.maximum(self.last[where], last)

    def partials(self, column: Column) -> Partials:
        return Partials(
            count=self.count,
            total=None if self.limbs is None else self.limbs.joined(self.total),
            unfit=None if self.limbs is None else self.limbs.unfit(self.total),
            lowest=self.lowest,
            highest=self.highest,
            spread=None if self.moments is None else self.moments.spread,
            first=_values_at(column, self.first, self.count),
            last=_values_at(column, self.last, self.count),
        )


def _add_sure(sums: list[_Sums], part: _Part, needs: ColumnNeeds) -> None:
    """What is known for sure, by prefix sums and levels: all windows share the tables."""
    values, slices = part.values, part.sure
    nothing = [None] * len(slices)
    if values is not None and sums and (limbs := sums[0].limbs) is not None:
        for place, numbers in enumerate(limbs.split(values)):
            for found, total in zip(sums, totals(numbers, slices), strict=True):
                found.total[place] += total
    lowest = extremes(values, slices, np.minimum) if needs.lowest and values is not None else nothing
    highest = extremes(values, slices, np.maximum) if needs.highest and values is not None else nothing
    spreads = moments(values.astype(np.float64), slices) if needs.spread and values is not None else nothing
    for number, found in enumerate(sums):
        lo, hi = slices[number]
        some = np.flatnonzero(hi > lo)
        if len(some) == 0:
            continue
        whole = len(some) == len(lo)
        lowest_of, highest_of = (
            one if one is None or whole else one[some] for one in (lowest[number], highest[number])
        )
        first = part.rank[lo[some]] if needs.first else some
        last = part.rank[hi[some] - 1] if needs.last else some
        found.merge(some, (hi - lo)[some], lowest_of, highest_of, first, last)
        spread = spreads[number]
        if found.moments is not None and spread is not None:
            found.moments.add(some, spread.count[some], spread.mean[some], spread.spread[some])


def _add_unsure(found: _Sums, part: _Part, slices: Slices, known_upto: np.ndarray) -> None:
    """What may not have been known yet, event by event."""
    for rows, positions in _known_pairs(part.rank, part.known, slices, known_upto):
        starts, mine = runs(rows)
        count = np.diff(np.append(starts, len(rows)))
        values = None if part.values is None else part.values[positions]
        if values is not None and found.limbs is not None:
            for total, numbers in zip(found.total, found.limbs.split(values), strict=True):
                total[mine] += np.add.reduceat(numbers, starts)
        lowest = None if values is None or found.lowest is None else np.minimum.reduceat(values, starts)
        highest = None if values is None or found.highest is None else np.maximum.reduceat(values, starts)
        first, last = part.rank[positions[starts]], part.rank[positions[starts + count - 1]]
        found.merge(mine, count, lowest, highest, first, last)
        if found.moments is not None and values is not None:
            if found.limbs is not None and found.limbs.halves:
                values = values.astype(np.float64)
            mean = np.add.reduceat(values, starts) / count
            with np.errstate(invalid="ignore", over="ignore"):
                spread = np.add.reduceat((values - np.repeat(mean, count)) ** 2, starts)
            found.moments.add(mine, count, mean, spread)


def _known_pairs(
    rank: np.ndarray, known: np.ndarray | None, slices: Slices, known_upto: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(label, position) of the events of the slices that were known to the label."""
    if known is None:
        return
    for rows, positions in pairs(*slices):
        keep = known[rank[positions]] <= known_upto[rows]
        if bool(keep.any()):
            yield rows[keep], positions[keep]


def _part(column: Column, timeline: Timeline, reach: list[Reach]) -> _Part:
    rank = timeline.rank
    sure = [(one.lo, one.sure) for one in reach]
    unsure = [(one.sure, one.unsure) for one in reach]
    if column.present is not None:
        there = column.present[rank]
        rank = rank[there]
        left = np.concatenate(([0], np.cumsum(there)))
        sure = [(left[lo], left[hi]) for lo, hi in sure]
        unsure = [(left[lo], left[hi]) for lo, hi in unsure]
    # Ranks are valid; clipping leaves out the check of it.
    values = None if column.values is None else column.values.take(rank, mode="clip")
    return _Part(rank=rank, values=values, sure=sure, unsure=unsure, known=timeline.known)


def _distinct(column: Column, parts: list[_Part], number: int, share: _Share, window: tuple[int, int]) -> np.ndarray:
    """Estimates of distinct values: the registers of a window are the greatest of its events'."""
    found = np.zeros(len(share.known_upto), dtype=np.int64)
    telling = [_telling(column, part, timeline, window[1]) for part, timeline in zip(parts, share.classes, strict=True)]
    for start in range(0, len(found), _LABELS_AT_ONCE):
        rows = slice(start, start + _LABELS_AT_ONCE)
        size = len(found[rows])
        registers = np.zeros((size, REGISTERS), dtype=np.uint8)
        for part, (kept, left) in zip(parts, telling, strict=True):
            lo, hi = (side[rows] for side in part.sure[number])
            for label, position in pairs(left[lo], left[hi]):
                _raise_registers(registers, column, part.rank[kept[position]], label)
            sure, unsure = (side[rows] for side in part.unsure[number])
            for label, position in _known_pairs(part.rank, part.known, (sure, unsure), share.known_upto[rows]):
                _raise_registers(registers, column, part.rank[position], label)
        found[rows] = estimate(registers)
    return found


def _telling(column: Column, part: _Part, timeline: Timeline, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions that can change a sketch, and how many of them lie before each position.

    Of the events of one key in one hop, which leave a window together, one that raises no register above what the
    earlier ones raised it to changes nothing.
    """
    if column.registers is None:
        raise ValueError("no registers were computed")
    index, run = (array[part.rank] for array in column.registers)
    code = _codes_of(part, timeline)
    tile = timeline.event_times[part.rank] // hop
    order = np.lexsort((np.arange(len(index)), index, tile, code))
    group = np.flatnonzero(_changes(code[order]) | _changes(tile[order]) | _changes(index[order]))
    number = np.zeros(len(order), dtype=np.int64)
    number[group] = 1
    number = np.cumsum(number)
    lifted = number * 256 + run[order]
    highest = np.maximum.accumulate(lifted)
    first = np.concatenate(([True], highest[1:] > highest[:-1])) if len(order) else np.zeros(0, dtype=bool)
    kept = np.sort(order[first])
    marks = np.zeros(len(order) + 1, dtype=np.int64)
    marks[kept + 1] = 1
    return kept, np.cumsum(marks)


def _codes_of(part: _Part, timeline: Timeline) -> np.ndarray:
    if len(part.rank) == len(timeline.packed):
        return timeline.packed >> 32
    codes = np.zeros(len(timeline.event_times), dtype=np.int64)
    codes[timeline.rank] = timeline.packed >> 32
    return codes[part.rank]


def _changes(values: np.ndarray) -> np.ndarray:
    return np.concatenate(([True], values[1:] != values[:-1])) if len(values) else np.zeros(0, dtype=bool)


def _raise_registers(registers: np.ndarray, column: Column, rank: np.ndarray, label: np.ndarray) -> None:
    if column.registers is None:
        raise ValueError("no registers were computed")
    index, run = column.registers
    np.maximum.at(registers.reshape(-1), label * REGISTERS + index[rank], run[rank])


def _registers(series: pl.Series, present: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    index, run = registers_of(series)
    return _spread_out(index, present), _spread_out(run, present)


def _spread_out(values: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    if present is None:
        return values
    out = np.zeros(len(present), dtype=values.dtype)
    out[present] = values
    return out


def _values_at(column: Column, ranks: np.ndarray | None, count: np.ndarray) -> np.ndarray | None:
    if ranks is None or column.values is None:
        return None
    if len(column.values) == 0:
        return np.zeros(len(ranks), dtype=column.values.dtype)
    return column.values[np.where(count > 0, ranks, 0)]
