"""Aggregating many slices `[lo, hi)` of one array at once, whatever their lengths.

Whole numbers are summed by differences of prefix sums, exact modulo 2^64; floats are made whole first (`exact_sums`).
For variances doubling levels are used: level s holds the aggregate of every block of 2^s values, and a slice is put
together from one block for each set bit of its length. Minimum and maximum take two overlapping blocks of one level.
Nothing depends on how long the slices are but the number of levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Slices = tuple[np.ndarray, np.ndarray]
_PAIRS_AT_ONCE = 4_000_000


def totals(values: np.ndarray, slices: list[Slices]) -> list[np.ndarray]:
    """Sums of slices of int64 values, exact modulo 2^64. An empty slice sums to 0."""
    sums = np.empty(len(values) + 1, dtype=np.int64)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return [sums[hi] - sums[lo] for lo, hi in slices]


def extremes(values: np.ndarray, slices: list[Slices], combine: np.ufunc) -> list[np.ndarray]:
    """`np.minimum` or `np.maximum` of slices; of an empty slice the answer is meaningless."""
    found = [np.zeros(len(lo), dtype=values.dtype) for lo, _ in slices]
    levels = [_level_of(hi - lo) for lo, hi in slices]
    highest = max((int(level.max(initial=-1)) for level in levels), default=-1)
    table = values.copy() if highest > 0 else values
    for level in range(highest + 1):
        block = 1 << level
        if level:
            reach = len(values) - block + 1
            combine(table[:reach], table[block // 2 : block // 2 + reach], out=table[:reach])
        for answer, one, its_level in zip(found, slices, levels, strict=True):
            here = np.flatnonzero(its_level == level)
            answer[here] = combine(table[one[0][here]], table[one[1][here] - block])
    return found


@dataclass(kw_only=True)
class Moments:
    """Count, mean and sum of squared deviations from it, for many windows."""

    count: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def nothing(cls, size: int) -> Moments:
        return cls(count=np.zeros(size, dtype=np.int64), mean=np.zeros(size), spread=np.zeros(size))

    def add(self, where: np.ndarray, count: np.ndarray | int, mean: np.ndarray, spread: np.ndarray) -> None:
        """Merge other values in (Chan, Golub and LeVeque 1979): stable however far the mean is from 0."""
        before = self.count[where]
        total = before + count
        share = np.divide(count, total, out=np.zeros(len(mean)), where=total > 0)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = mean - self.mean[where]
            self.spread[where] += spread + np.where(before > 0, apart * apart * before * share, 0.0)
            self.mean[where] = np.where(before > 0, self.mean[where] + apart * share, mean)
        self.count[where] = total


def moments(values: np.ndarray, slices: list[Slices]) -> list[Moments]:
    """Count, mean and spread of slices of float64 values."""
    found = [Moments.nothing(len(lo)) for lo, _ in slices]
    at = [lo.copy() for lo, _ in slices]
    lengths = [hi - lo for lo, hi in slices]
    mean, spread = values.copy(), np.zeros(len(values))
    with np.errstate(invalid="ignore", over="ignore"):
        _add_levels(found, mean, spread, at, lengths)
    return found


def _add_levels(
    found: list[Moments], mean: np.ndarray, spread: np.ndarray, at: list[np.ndarray], lengths: list[np.ndarray]
) -> None:
    longest = max((int(length.max(initial=0)) for length in lengths), default=0)
    for level in range(longest.bit_length()):
        block = 1 << level
        if level:
            reach = max(len(mean) - block // 2, 0)
            left, right = mean[:reach], mean[block // 2 : block // 2 + reach]
            apart = right - left
            spread = spread[:reach] + spread[block // 2 : block // 2 + reach] + apart * apart * (block / 4)
            mean = left + apart / 2
        for answer, position, length in zip(found, at, lengths, strict=True):
            here = np.flatnonzero(length & block)
            answer.add(here, block, mean[position[here]], spread[position[here]])
            position[here] += block


def pairs(lo: np.ndarray, hi: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (slice, position) of the slices, some millions at a time; a slice is never divided between two portions."""
    lengths = hi - lo
    rows = np.flatnonzero(lengths > 0)
    ends = np.cumsum(lengths[rows])
    start = 0
    while start < len(rows):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")), start + 1)
        mine = rows[start:stop]
        counts = lengths[mine]
        first = np.repeat(lo[mine] - (ends[start:stop] - counts - done), counts)
        yield np.repeat(mine, counts), first + np.arange(int(counts.sum()))
        start = stop


def runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal numbers begin, and the number of each run."""
    starts = (
        np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1]))) if len(rows) else np.zeros(0, dtype=np.int64)
    )
    return starts, rows[starts]


def _level_of(lengths: np.ndarray) -> np.ndarray:
    """floor(log2(length)), and -1 for an empty slice."""
    return np.frexp(lengths.astype(np.float64))[1].astype(np.int8) - 1
