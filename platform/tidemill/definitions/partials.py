"""Partial aggregates of many windows at once, and how they become feature values.

Offline they come from slices of sorted events, online from tiles; the last step, from partial aggregates to declared
values, is this module on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.definitions.catalog import AggregationFunction
from tidemill.definitions.types import ValueType

ADDED = frozenset({AggregationFunction.SUM, AggregationFunction.MEAN, AggregationFunction.VAR, AggregationFunction.STD})
"""What takes the total of its values."""
LOW = 0xFFFF_FFFF
WIDE = -(2**63)
"""Stands for a sum of whole numbers that 64 bits do not hold."""


@dataclass(kw_only=True)
class Partials:
    """What is known of one column in n windows, an array of length n each; None where nobody asked.

    Where `count` is 0 the other arrays hold anything. `spread` is the sum of squared deviations from the mean.
    `first` and `last` are values in order of (event time, known time, position). `distinct` is an estimate. `unfit` is
    true where a whole `total` is more than 64 bits hold.
    """

    count: np.ndarray
    total: np.ndarray | None = None
    lowest: np.ndarray | None = None
    highest: np.ndarray | None = None
    spread: np.ndarray | None = None
    first: np.ndarray | None = None
    last: np.ndarray | None = None
    distinct: np.ndarray | None = None
    unfit: np.ndarray | None = None


def finish(function: AggregationFunction, partials: Partials) -> tuple[np.ndarray, np.ndarray]:
    """The function's values and which of them are not null.

    Of an empty window the count is 0 and everything else null. `var` and `std` are those of a sample (divisor n - 1),
    as in Polars, pandas, DuckDB and Spark, and so null for fewer than two values. A NaN among the values makes every
    function of them but the counts NaN (first and last only where it stands there). What takes a sum that does not fit
    is null.
    """
    values, present = _finished(function, partials)
    if partials.unfit is not None and function in ADDED:
        present = present & ~partials.unfit
    return values, present


def _finished(function: AggregationFunction, partials: Partials) -> tuple[np.ndarray, np.ndarray]:
    count = partials.count
    if function is AggregationFunction.COUNT:
        return count, np.ones(len(count), dtype=bool)
    if function in {AggregationFunction.VAR, AggregationFunction.STD}:
        return _spread(function, partials)
    some = count > 0
    if function is AggregationFunction.MEAN:
        return _asked(partials.total) / np.maximum(count, 1), some
    found = {
        AggregationFunction.SUM: partials.total,
        AggregationFunction.MIN: partials.lowest,
        AggregationFunction.MAX: partials.highest,
        AggregationFunction.FIRST: partials.first,
        AggregationFunction.LAST: partials.last,
        AggregationFunction.COUNT_DISTINCT: partials.distinct,
    }[function]
    return _asked(found), some


def declared(values: np.ndarray, dtype: ValueType) -> np.ndarray:
    """Values in the machine type of the declared one; timestamps as int64 microseconds."""
    if dtype is ValueType.BOOL:
        return values != 0
    return values.astype(_MACHINE[dtype], copy=False)


def held(values: np.ndarray, dtype: ValueType) -> np.ndarray | None:
    """Which whole values the declared type can hold; None where that is all of them."""
    bounds = _BOUNDS.get(dtype)
    if bounds is None or len(values) == 0 or (values.min() >= bounds[0] and values.max() <= bounds[1]):
        return None
    return (values >= bounds[0]) & (values <= bounds[1])


def joined(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of whole numbers from the sums of their halves (`value >> 32` and `value & LOW`), and which do not fit into
    64 bits: these are anything. The least of all numbers stands for one that does not fit, and so does not fit itself.
    """
    total = (high << 32) + low
    carried = high + (low >> 32)
    return total, (carried < -(2**31)) | (carried >= 2**31) | (total == WIDE)


_MACHINE = {
    ValueType.INT32: np.int32,
    ValueType.INT64: np.int64,
    ValueType.UNIX_TIMESTAMP: np.int64,
    ValueType.DOUBLE: np.float64,
    ValueType.FLOAT: np.float32,
}
_BOUNDS = {
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UNIX_TIMESTAMP: (-62_135_596_800_000_000, 253_402_300_799_999_999),  # the years 1 to 9999
}


def _spread(function: AggregationFunction, partials: Partials) -> tuple[np.ndarray, np.ndarray]:
    several = partials.count > 1
    variance = np.maximum(_asked(partials.spread), 0.0) / np.maximum(partials.count - 1, 1)
    return (variance if function is AggregationFunction.VAR else np.sqrt(variance)), several


def _asked(found: np.ndarray | None) -> np.ndarray:
    if found is None:
        raise ValueError("a partial aggregate is read that was not computed")
    return found
