"""The last row of an entity that may be seen, in rows that are completely ordered. Logarithmic whatever the delays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.offline.instants import FOREVER, Instants

Integers = npt.NDArray[np.integer[Any]]


def last_known(
    owner: Integers, event: Instants, known: Instants, codes: Integers, cutoff: Instants, known_cutoff: Instants
) -> Integers:
    """For each label the last row with `owner == code`, `event <= cutoff`, `known <= known_cutoff`; -1 without one.

    Rows are ordered by (owner, event, known, position), so the last such row is the winner.
    """
    first = np.searchsorted(owner, codes, side="left")
    after = upper_bound(event, first, np.searchsorted(owner, codes, side="right"), cutoff)
    found = _last_at_most(known, after, known_cutoff)
    return np.where(found >= first, found, -1)


def upper_bound(values: Instants, low: Integers, high: Integers, limit: Instants) -> Integers:
    """The first place in `[low, high)` whose value exceeds `limit`; values rise within each range."""
    low, high = low.copy(), high.copy()
    while (open_ := low < high).any():
        middle = (low + high) >> 1
        below = open_ & (values[np.minimum(middle, len(values) - 1)] <= limit)
        low = np.where(below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low


def _last_at_most(values: Instants, end: Integers, limit: Instants) -> Integers:
    """The last place before `end` whose value is at most `limit`, or -1: up and down a tree of block minima."""
    levels = _block_minima(values)
    block = end.copy()
    height = np.full(len(end), -1)
    for level, minima in enumerate(levels):
        # To the left of an odd boundary lies one whole block of this level that has not been looked at.
        odd = (height < 0) & (block & 1 == 1)
        hit = odd & (minima[np.clip(block - 1, 0, len(minima) - 1)] <= limit)
        height[hit] = level
        block = np.where(hit, block - 1, np.where(height < 0, block >> 1, block))
    for level in range(len(levels) - 1, 0, -1):
        down = height == level
        right = np.minimum(2 * block + 1, len(levels[level - 1]) - 1)
        take_right = down & (levels[level - 1][right] <= limit)
        block = np.where(down, 2 * block + take_right, block)
        height[down] = level - 1
    return np.where(height == 0, block, -1)


def _block_minima(values: Instants) -> list[Instants]:
    """Level s holds the minimum of each block of 2**s values; the last block may be short."""
    levels = [values]
    while len(levels[-1]) > 1:
        level = levels[-1]
        if len(level) % 2:
            level = np.append(level, FOREVER)
            levels[-1] = level
        levels.append(np.minimum(level[0::2], level[1::2]))
    return levels
