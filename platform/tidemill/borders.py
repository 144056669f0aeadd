"""Between which borders a value lies, for many values and few borders."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]

_MOST_BLOCKS = 1 << 20
_FEW_VALUES = 10_000
_FOREVER = np.iinfo(np.int64).max


def count_at_most(borders: Integers, values: Integers) -> npt.NDArray[np.int64]:
    """How many of the borders are at most each value: `np.searchsorted(borders, values, side="right")`, only faster.

    Values are first looked up by blocks no longer than the narrowest gap, of which each holds at most one border.

    Args:
        borders: int64, strictly rising.
        values: int64.
    """
    if len(borders) < 2 or len(values) < _FEW_VALUES:
        return np.searchsorted(borders, values, side="right")
    block = int(np.diff(borders).min()).bit_length() - 1
    first, last = int(borders[0]) >> block, int(borders[-1]) >> block
    if last - first > _MOST_BLOCKS:
        return np.searchsorted(borders, values, side="right")
    # What every block's first value has at or below it; blocks further out are clipped to one without borders.
    found = np.searchsorted(borders, np.arange(first, last + 2, dtype=np.int64) << block, side="right")
    counts = np.concatenate([[0], found])
    places = np.clip(values >> block, first - 1, last + 1)
    places -= first - 1
    count = counts.take(places, mode="clip")  # in range already; the check would cost a third
    return count + (values >= np.append(borders, _FOREVER)[count])
