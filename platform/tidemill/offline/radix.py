"""Stable orders of whole numbers by digits of 16 bits, which NumPy sorts by counting: far faster than comparing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.offline.taking import taken

Integers = npt.NDArray[np.integer[Any]]
Order = npt.NDArray[np.int64]

_DIGIT_BITS = 16
_MOST_DIGITS = 4


def stable_order(numbers: Integers, *, after: Order | None = None) -> Order:
    """The order in which numbers rise, equal ones as they are; with `after`, equal ones in that order."""
    least = int(numbers.min(initial=0))
    bits = (int(numbers.max(initial=0)) - least).bit_length()
    if bits >= _DIGIT_BITS * _MOST_DIGITS:
        return np.argsort(numbers, kind="stable") if after is None else _refined(after, numbers)
    order = after
    for shift in range(0, max(bits, 1), _DIGIT_BITS):
        digit = ((numbers - least) >> shift).astype(np.uint16)
        order = np.argsort(digit, kind="stable") if order is None else _refined(order, digit)
    assert order is not None  # noqa: S101 - there is always one digit
    return order


def _refined(order: Order, numbers: Integers) -> Order:
    """By these numbers, and where they are equal in the order given."""
    return taken(order, np.argsort(taken(numbers, order), kind="stable"))


def rough_order(numbers: Integers) -> Order:
    """An order in which numbers rise but for close ones: by their leading 16 bits."""
    least = int(numbers.min(initial=0))
    bits = (int(numbers.max(initial=0)) - least).bit_length()
    return np.argsort(((numbers - least) >> max(0, bits - _DIGIT_BITS)).astype(np.uint16), kind="stable")
