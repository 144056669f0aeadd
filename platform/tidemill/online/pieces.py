"""Bytes of many rows at once: each row's lie side by side as pieces, and a piece is the same part of all rows.

A piece knows how wide it is in each row; narrow pieces are filled into a matrix of rows by width and the unused cells
masked out, long texts are copied by their offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Bytes = np.ndarray
"""A flat array of uint8."""

_WIDEST_IN_MATRIX = 96


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """Up to `width` bytes in each row: `lengths` of them, or all where `lengths` is None. `fill(target)` writes them
    into an array of rows by width. `text` are the bytes where they are the same in every row."""

    width: int
    lengths: np.ndarray | None
    fill: Callable[[np.ndarray], None]
    text: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Long:
    """`lengths` bytes in each row, lying one row after the other in `flat`."""

    flat: Bytes
    lengths: np.ndarray


Piece = Narrow | Long


def constant(text: bytes) -> Narrow:
    """The same bytes in every row."""
    row = np.frombuffer(text, dtype=np.uint8)

    def fill(target: np.ndarray) -> None:
        target[:] = row

    return Narrow(width=len(text), lengths=None, fill=fill, text=text)


def closed_up(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with neighbouring constants as one."""
    found: list[Piece] = []
    for piece in pieces:
        before = found[-1] if found else None
        if isinstance(piece, Narrow) and isinstance(before, Narrow) and None not in (piece.text, before.text):
            found[-1] = constant((before.text or b"") + (piece.text or b""))
        else:
            found.append(piece)
    return found


def chosen(texts: Sequence[bytes], index: np.ndarray) -> Narrow:
    """In each row one of a few short texts: `texts[index]`."""
    if len(texts) == 1:
        return constant(texts[0])
    width = max(map(len, texts))
    table = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), dtype=np.uint8).reshape(-1, width)

    def fill(target: np.ndarray) -> None:
        target[:] = table[index]

    return Narrow(width=width, lengths=np.array([len(text) for text in texts])[index], fill=fill)


def total_length(pieces: Sequence[Piece], rows: int) -> np.ndarray:
    """How many bytes the pieces take together in each row."""
    total = np.zeros(rows, dtype=np.int64)
    for piece in pieces:
        if piece.lengths is not None:
            total += piece.lengths
        elif isinstance(piece, Narrow):
            total += piece.width
    return total


def numbers(values: np.ndarray, dtype: str) -> Narrow:
    """Each number in a fixed number of bytes, e.g. `>i8`."""
    kind = np.dtype(dtype)

    def fill(target: np.ndarray) -> None:
        over(target, 0, kind)[:] = values

    return Narrow(width=kind.itemsize, lengths=None, fill=fill)


def text_piece(flat: Bytes, lengths: np.ndarray) -> Piece:
    """Short texts go into the matrix, where they cost a mask; long ones are copied by offset."""
    width = int(lengths.max(initial=0))
    if width > _WIDEST_IN_MATRIX:
        return Long(flat=flat, lengths=lengths)

    def fill(target: np.ndarray) -> None:
        if len(flat) == target.size:
            target[:] = flat.reshape(target.shape)
        else:
            target[np.arange(width) < lengths[:, None]] = flat

    return Narrow(width=width, lengths=unless_full(lengths, width), fill=fill)


def side_by_side(parts: Sequence[Narrow]) -> Narrow:
    """Parts of fixed width as one."""

    def fill(target: np.ndarray) -> None:
        start = 0
        for part in parts:
            part.fill(target[:, start : start + part.width])
            start += part.width

    return Narrow(width=sum(part.width for part in parts), lengths=None, fill=fill)


def join_rows(pieces: Sequence[Piece], rows: int) -> tuple[Bytes, np.ndarray]:
    """All pieces of all rows, row after row; and where each row begins, as `rows + 1` offsets."""
    blocks = _blocks(pieces, rows)
    if len(blocks) == 1:
        flat, lengths = blocks[0]
        return flat, _offsets(lengths)
    total = np.sum([lengths for _, lengths in blocks], axis=0)
    offsets = _offsets(total)
    out = np.empty(int(offsets[-1]), dtype=np.uint8)
    begin = offsets[:-1].copy()
    for flat, lengths in blocks:
        starts = _offsets(lengths)[:-1]
        out[np.repeat(begin - starts, lengths) + np.arange(len(flat))] = flat
        begin += lengths
    return out, offsets


def fill_matrix(pieces: Sequence[Narrow], rows: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """The pieces side by side as rows by width, which of the cells are used (None is all), and how many in each row."""
    width = sum(piece.width for piece in pieces)
    matrix = np.empty((rows, width), dtype=np.uint8)
    lengths = np.full(rows, width, dtype=np.int64)
    used: np.ndarray | None = None
    start = 0
    for piece in pieces:
        piece.fill(matrix[:, start : start + piece.width])
        if piece.lengths is not None:
            used = np.ones((rows, width), dtype=bool) if used is None else used
            used[:, start : start + piece.width] = np.arange(piece.width) < piece.lengths[:, None]
            lengths -= piece.width - piece.lengths
        start += piece.width
    return matrix, used, lengths


def block(pieces: Sequence[Narrow], rows: int) -> tuple[Bytes, np.ndarray]:
    """Narrow pieces of all rows, row after row, and how many bytes each row has."""
    matrix, used, lengths = fill_matrix(pieces, rows)
    return (matrix.reshape(-1) if used is None else matrix[used]), lengths


def unless_full(lengths: np.ndarray, width: int) -> np.ndarray | None:
    """The lengths, or None where every row takes the whole width: then nothing need be masked out."""
    return None if len(lengths) and int(lengths.min()) == width else lengths


def over(target: np.ndarray, start: int, kind: np.dtype) -> np.ndarray:
    """The bytes from `start` of each row of `target`, seen as one number; writing goes through to the rows."""
    cells = target[:, start : start + kind.itemsize]
    return np.lib.stride_tricks.as_strided(
        np.ndarray((0,), dtype=kind) if not len(cells) else _as_number(cells, kind),
        shape=(len(cells),),
        strides=(target.strides[0],),
        writeable=True,
    )


def _blocks(pieces: Sequence[Piece], rows: int) -> list[tuple[Bytes, np.ndarray]]:
    """Neighbouring narrow pieces as one flat block each, long ones as they are."""
    blocks: list[tuple[Bytes, np.ndarray]] = []
    narrow: list[Narrow] = []
    for piece in pieces:
        if isinstance(piece, Narrow):
            narrow.append(piece)
            continue
        if narrow:
            blocks.append(block(narrow, rows))
            narrow = []
        blocks.append((piece.flat, piece.lengths))
    if narrow or not blocks:
        blocks.append(block(narrow, rows))
    return blocks


def _as_number(cells: np.ndarray, kind: np.dtype) -> np.ndarray:
    return np.ndarray((1,), dtype=kind, buffer=cells[0].data)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
