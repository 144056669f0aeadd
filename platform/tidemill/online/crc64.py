"""Redis's CRC-64 (Jones) of many rows at once.

The checksum is linear and starts from zero: a row's is the exclusive or of what each of its bytes contributes, which
depends on the byte and on how many bytes follow it. So it is looked up a column of bytes at a time, and a text that is
the same in every row is looked up as a whole. See https://github.com/redis/redis/blob/unstable/src/crc64.c
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tidemill.online.pieces import Narrow

LONGEST = 4_095
"""Bytes that a row may have."""

_POLYNOMIAL = np.uint64(0x95AC9329AC4BC9B5)  # the low bit first
_LOW, _ONE, _EIGHT = np.uint64(0xFF), np.uint64(1), np.uint64(8)


def checksums(matrix: np.ndarray, pieces: Sequence[Narrow]) -> np.ndarray:
    """The checksum of each row: uint64.

    `matrix` is (rows, width) uint8 as the pieces filled it, side by side; cells that a piece does not use do not count.
    No row has more than `LONGEST` bytes.
    """
    found = np.zeros(len(matrix), dtype=np.uint64)
    end = sum(piece.width for piece in pieces)
    after: int | np.ndarray = 0  # how many bytes follow the piece
    for piece in reversed(pieces):
        start = end - piece.width
        if piece.text is not None:
            found ^= _text_followed(piece.text)[after]
        else:
            _add_cells(found, matrix[:, start:end].T.astype(np.intp), piece.lengths, after)
        after = after + (piece.width if piece.lengths is None else piece.lengths)
        end = start
    return found


def _add_cells(found: np.ndarray, cells: np.ndarray, lengths: np.ndarray | None, after: int | np.ndarray) -> None:
    """Add a piece's columns of bytes, of which row i uses the first `lengths[i]`."""
    tables, width = _byte_followed(), len(cells)
    if lengths is None and isinstance(after, int):
        for place in range(width):
            found ^= tables[after + width - 1 - place].take(cells[place])
        return
    flat = tables.reshape(-1)
    last = (after + (width if lengths is None else lengths) - 1) * 256
    for place in range(width):
        more = flat.take(cells[place] + (last - 256 * place), mode="clip")
        if lengths is not None:
            more[lengths <= place] = 0
        found ^= more


@lru_cache(maxsize=1)
def _byte_followed() -> np.ndarray:
    """(LONGEST + 1, 256) uint64: what each byte contributes that 0, 1, ... bytes follow."""
    first = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        first = (first >> _ONE) ^ np.where(first & _ONE, _POLYNOMIAL, np.uint64(0))
    found = np.empty((LONGEST + 1, 256), dtype=np.uint64)
    found[0] = first
    for place in range(LONGEST):
        found[place + 1] = first[(found[place] & _LOW).astype(np.intp)] ^ (found[place] >> _EIGHT)
    return found


@lru_cache(maxsize=1_024)
def _text_followed(text: bytes) -> np.ndarray:
    """(LONGEST + 2 - len(text),) uint64: what a text contributes that 0, 1, ... bytes follow."""
    tables = _byte_followed()
    rows = LONGEST + 2 - len(text)
    found = np.zeros(rows, dtype=np.uint64)
    for place, byte in enumerate(text):
        follow = len(text) - 1 - place
        found ^= tables[follow : follow + rows, byte]
    return found
