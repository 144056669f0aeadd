"""Many encoded numbers at once: all bytes shifted to their places by a few array operations, and added up.

Everything here answers None where the bytes look other than they mostly do; the caller then decodes them one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Raw = Sequence[bytes | None]
"""What Redis has for some fields; None where there is nothing."""

_SEVENS = np.array([1 << shift for shift in (0, 7, 14, 21, 28)], dtype=np.int64)


def varints(raw: Sequence[bytes], head: int) -> np.ndarray | None:
    """An array of int64 from numbers of the form [tag][varint]. Negative ones have ten bytes, as two's complement.

    Raises TypeError where one is None, ValueError where one has more than 255 bytes.
    """
    data = np.frombuffer(b"".join(raw), dtype=np.uint8)
    sizes = np.frombuffer(bytes(map(len, raw)), dtype=np.uint8).astype(np.intp)
    if sizes.min() < 2 or sizes.max() > 11:  # a null has none
        return None
    ends = np.cumsum(sizes)
    starts = ends - sizes
    more = data >= 0x80
    if (data[starts] != head).any() or more[ends - 1].any() or np.count_nonzero(more) != len(data) - 2 * len(sizes):
        return None
    shift = np.arange(len(data)) - np.repeat(starts + 1, sizes)
    shift[starts] = 0
    digits = (data & 0x7F).astype(np.uint64) << (7 * shift).astype(np.uint64)
    digits[starts] = 0
    return np.add.reduceat(digits, starts).view(np.int64)


def instants(raw: Sequence[bytes], length: int) -> list[int] | None:
    """Timestamp messages of one length with seconds in five bytes, and nanoseconds in what is left."""
    if length < 6 or length > 12 or length == 7:
        return None
    table = np.frombuffer(b"".join(raw), dtype=np.uint8).reshape(-1, length)
    seconds = _column_of_varints(table[:, :6], 0x08)
    if seconds is None:
        return None
    if length == 6:
        return (seconds * 1_000_000).tolist()
    nanos = _column_of_varints(table[:, 6:], 0x10)
    return None if nanos is None else (seconds * 1_000_000 + nanos // 1_000).tolist()


def instants_by_length(raw: Sequence[bytes], lengths: set[int]) -> list[Any] | None:
    """Instants with microseconds take one of a few lengths; those of equal length are decoded together."""
    if len(lengths) == 1:
        return instants(raw, min(lengths))
    out: list[Any] = [None] * len(raw)
    for length in lengths:
        places = [place for place, item in enumerate(raw) if len(item) == length]
        found = instants([raw[place] for place in places], length)
        if found is None:
            return None
        for place, value in zip(places, found, strict=True):
            out[place] = value
    return out


def _column_of_varints(table: np.ndarray, head: int) -> np.ndarray | None:
    digits = table[:, 1:]
    if (table[:, 0] != head).any() or (digits[:, :-1] < 0x80).any() or (digits[:, -1] >= 0x80).any():
        return None
    return (digits.astype(np.int64) & 0x7F) @ _SEVENS[: digits.shape[1]]
