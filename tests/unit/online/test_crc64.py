"""The checksum of a whole frame's rows is what Redis computes for each."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.online.crc64 import checksums
from tidemill.online.pieces import Narrow, chosen, constant, fill_matrix, numbers


def checksum_of(pieces: list[Narrow], rows: int) -> list[int]:
    return checksums(fill_matrix(pieces, rows)[0], pieces).tolist()


def one_by_one(raw: bytes) -> int:
    """Bit by bit, from the definition."""
    found = 0
    for byte in raw:
        found ^= byte
        for _ in range(8):
            found = (found >> 1) ^ (0x95AC9329AC4BC9B5 if found & 1 else 0)
    return found


def test_the_checksum_is_the_one_that_redis_publishes():
    assert checksum_of([constant(b"123456789")], 1) == [0xE9C6D914C4B8D9CA]
    assert checksum_of([numbers(np.frombuffer(b"1", np.uint8), "u1"), constant(b"23456789")], 1) == [0xE9C6D914C4B8D9CA]


@given(
    texts=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4),
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**63 - 1)), min_size=1, max_size=5),
    middle=st.binary(max_size=20),
)
def test_cells_that_a_row_does_not_use_do_not_count(texts: list[bytes], rows: list[tuple[int, int]], middle: bytes):
    index = np.array([place % len(texts) for place, _ in rows])
    numbered = np.array([number for _, number in rows])
    pieces = [
        chosen(texts, index),
        constant(middle),
        numbers(numbered, ">i8"),
        chosen(texts[::-1], index),
        constant(b"!"),
    ]
    expected = [
        one_by_one(texts[place] + middle + number.to_bytes(8, "big") + texts[::-1][place] + b"!")
        for place, number in zip(index.tolist(), numbered.tolist(), strict=True)
    ]
    assert checksum_of(pieces, len(rows)) == expected
