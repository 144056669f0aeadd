"""Rows of one frame as calls of a script, a few rows each: while a script runs, nobody else is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tidemill.online.bulk_strings import bulk
from tidemill.online.resp import Script

Joined = tuple[np.ndarray, np.ndarray]
"""Bytes of all rows, row after row, and where each begins, as `columns.join_rows` gives them."""


def with_blob(script: Script, keys: Joined, rows: Joined, options: Sequence[Any], *, most: int) -> list[bytes]:
    """Calls with the keys of a batch, its rows as one blob, and what holds for all. A batch has about `most` bytes."""
    tail = b"".join(bulk(option) for option in options)
    return [
        b"".join((_head(script, count, 1 + len(options)), key_bytes, b"$%d\r\n" % len(blob), blob, b"\r\n", tail))
        for count, key_bytes, blob in _cut(keys, rows, most)
    ]


def with_strings(
    script: Script, keys: Joined, rows: Joined, options: Sequence[Any], *, most: int
) -> list[tuple[bytes, int]]:
    """Calls with the keys of a batch, what holds for all, and a string for each row; and how many rows each has.

    `rows` are bulk strings.
    """
    before = b"".join(bulk(option) for option in options)
    return [
        (b"".join((_head(script, count, len(options) + count), key_bytes, before, strings)), count)
        for count, key_bytes, strings in _cut(keys, rows, most)
    ]


def _head(script: Script, keys: int, arguments: int) -> bytes:
    return b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n%s" % (3 + keys + arguments, script.digest.encode(), bulk(keys))


def _cut(keys: Joined, rows: Joined, most: int) -> Iterator[tuple[int, memoryview, memoryview]]:
    """How many rows, their keys, their bytes."""
    key_bytes, row_bytes, key_starts, row_starts = keys[0].data, rows[0].data, keys[1], rows[1]
    count = len(row_starts) - 1
    together = max(1, most * count // max(1, len(row_bytes)))
    for first in range(0, count, together):
        last = min(first + together, count)
        yield (
            last - first,
            key_bytes[int(key_starts[first]) : int(key_starts[last])],
            row_bytes[int(row_starts[first]) : int(row_starts[last])],
        )
