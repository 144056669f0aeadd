"""Many encoded numbers at once: all bytes shifted to their places by a few array operations, and added up.

Everything here answers None where the bytes look other than they mostly do; the caller then decodes them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Raw = Sequence[bytes | None]
"""What Redis has for some fields; None where there is nothing."""

_SEVENS = np.array([1 << shift for shift in (0, 7, 14, 21, 28)], dtype=np.int64)

Words = Callable[[np.ndarray], np.ndarray]

_ALL = 2**64 - 1
_MORE, _NO_MORE = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F)
"""The bit of each byte that says that there are more."""
_FIRST = np.array([0, *((1 << 8 * size) - 1 for size in range(1, 9)), _ALL, _ALL], dtype=np.uint64)
"""The first bytes of a word, so many of them."""
_MORE_BUT_LAST = np.array([_ALL, *(int(_MORE) & _first for _first in _FIRST.tolist()[:-2]), _MORE], dtype=np.uint64)
"""How those bits are in numbers of so many bytes: no number has none."""
_CLOSER = tuple(
    (np.uint64(shift), np.uint64(low))
    for shift, low in ((1, 0x007F007F007F007F), (2, 0x00003FFF00003FFF), (4, 0x000000000FFFFFFF))
)


def as_doubles(numbers: np.ndarray) -> np.ndarray:
    """What a float of Python is, and side by side in memory. A NaN of any kind is a NaN."""
    if numbers.itemsize == 8:
        return numbers.astype(np.float64, order="C")
    with np.errstate(invalid="ignore"):
        return numbers.astype(np.float64, order="C")


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


def varints_at(words: Words, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
    """An array of int64 from varints that begin at these bytes and have these sizes; `words` gives the 64 bits that
    begin at each of some bytes, the first byte lowest."""
    found = words(starts)
    found &= _FIRST.take(sizes, mode="clip")
    if np.count_nonzero((found & _MORE) != _MORE_BUT_LAST.take(sizes, mode="clip")):
        return None
    found &= _NO_MORE
    for shift, low in _CLOSER:  # neighbours of 7, 14 and 28 bits
        high = found & ~low
        high >>= shift
        found &= low
        found |= high
    long = (sizes > 8).nonzero()[0]
    if len(long) and not _add_last_bits(found, long, words(starts[long] + 8), sizes[long]):
        return None
    return found.view(np.int64)


def _add_last_bits(found: np.ndarray, long: np.ndarray, words: np.ndarray, sizes: np.ndarray) -> bool:
    """What is in a ninth byte, and in the tenth that all negative numbers have. False where there is something else."""
    ninth, tenth = words & np.uint64(0xFF), (words >> np.uint64(8)) & np.uint64(0xFF)
    negative = sizes == 10
    if np.count_nonzero(np.where(negative, (ninth < 0x80) | (tenth != 1), (ninth >= 0x80) | (sizes > 10))):
        return False
    found[long] |= (ninth & np.uint64(0x7F)) << np.uint64(56) | negative.astype(np.uint64) << np.uint64(63)
    return True
