"""Whole columns into bytes: what `codec` and `keys` do for one value, for a frame at once and without Python's loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.types import ValueType
from tidemill.online.codec import NULL, encode_value, tag
from tidemill.online.declared import as_declared, filled, flat_texts, seconds_of
from tidemill.online.pieces import (
    Long,
    Narrow,
    Piece,
    block,
    constant,
    numbers,
    over,
    side_by_side,
    text_piece,
    unless_full,
)

_FIXED_NUMBERS = {ValueType.DOUBLE: ("<f8", 8), ValueType.FLOAT: ("<f4", 4)}


def feature_pieces(dtype: ValueType, column: pl.Series) -> tuple[list[Piece], str]:
    """A column of values, each after its length; and how that length is written, as Lua's struct spells it.

    Raises InputError where the column's values are not of the type.
    """
    column = as_declared(dtype, column)
    if dtype in _FIXED_NUMBERS:
        return [_fixed_numbers(dtype, column)], "Bc0"
    if dtype in (ValueType.INT64, ValueType.INT32, ValueType.BOOL, ValueType.UNIX_TIMESTAMP):
        return [_whole_numbers(dtype, column)], "Bc0"
    if dtype in (ValueType.STRING, ValueType.BYTES):
        return _texts(dtype, column)
    return _one_by_one(dtype, column)


def key_pieces(dtype: ValueType, column: pl.Series) -> list[Piece]:
    """A join key's part of the entity key: type, length, value. The column has no nulls.

    Raises InputError where the column's values are not of the type.
    """
    column = as_declared(dtype, column)
    if dtype in (ValueType.STRING, ValueType.BYTES):
        flat, lengths = flat_texts(column)
        head = constant(np.array([dtype], dtype="<u4").tobytes())
        return [head, numbers(lengths, "<u4"), text_piece(flat, lengths)]
    size, kind = (4, "<i4") if dtype is ValueType.INT32 else (8, "<i8")
    values = seconds_of(column) if dtype is ValueType.UNIX_TIMESTAMP else column.to_numpy()
    return [constant(np.array([dtype, size], dtype="<u4").tobytes()), numbers(values, kind)]


def plain_texts(column: pl.Series) -> tuple[np.ndarray, Piece]:
    """How long each text is in bytes (0 for null), and the texts."""
    flat, lengths = flat_texts(column)
    return lengths, text_piece(flat, lengths)


def timestamps(micros: np.ndarray) -> Narrow:
    """A Timestamp message for each instant, after one byte that says how long it is."""
    seconds = micros // 1_000_000
    nanos = (micros - seconds * 1_000_000) * 1_000
    parts = [_tagged_varints(0x08, seconds), _tagged_varints(0x10, nanos)]
    return _prefixed_by_length(parts)


def _fixed_numbers(dtype: ValueType, column: pl.Series) -> Narrow:
    """[length][tag][number] for a float of either width; [0] for null."""
    kind, size = _FIXED_NUMBERS[dtype]
    values = filled(column, 0.0).to_numpy()
    head = np.frombuffer(bytes((size + 1,)) + tag(dtype, 1 if size == 8 else 5), dtype=np.uint8)
    missing = column.is_null().to_numpy() if column.null_count() else None

    def fill(target: np.ndarray) -> None:
        target[:, :2] = head
        over(target, 2, np.dtype(kind))[:] = values
        if missing is not None:
            target[missing, 0] = 0

    lengths = None if missing is None else np.where(missing, 1, size + 2)
    return Narrow(width=size + 2, lengths=lengths, fill=fill)


def _whole_numbers(dtype: ValueType, column: pl.Series) -> Narrow:
    """[length][tag][varint] for integers, booleans and instants; [0] for null."""
    missing = column.is_null().to_numpy() if column.null_count() else None
    if dtype is ValueType.UNIX_TIMESTAMP:
        values = seconds_of(column)
    elif dtype is ValueType.BOOL:
        values = filled(column, False).cast(pl.Int64).to_numpy()
    else:
        values = filled(column, 0).cast(pl.Int64).to_numpy()
    matrix, sizes = _varints(values)
    head = tag(dtype, 0)[0]

    def fill(target: np.ndarray) -> None:
        target[:, 0] = sizes + 1 if missing is None else np.where(missing, 0, sizes + 1)
        target[:, 1] = head
        target[:, 2:] = matrix

    lengths = sizes + 2 if missing is None else np.where(missing, 1, sizes + 2)
    return Narrow(width=matrix.shape[1] + 2, lengths=unless_full(lengths, matrix.shape[1] + 2), fill=fill)


def _texts(dtype: ValueType, column: pl.Series) -> tuple[list[Piece], str]:
    """[length][tag][varint of the text's length][text]; an empty text is not null."""
    flat, lengths = flat_texts(column)
    missing = column.is_null().to_numpy() if column.null_count() else None
    matrix, sizes = _varints(lengths)
    total = lengths + sizes + 1
    short = int(total.max(initial=0)) <= 255
    prefix = 1 if short else 4
    kind = np.dtype("u1" if short else ">u4")
    stated = total if missing is None else np.where(missing, 0, total)

    def fill(target: np.ndarray) -> None:
        over(target, 0, kind)[:] = stated
        target[:, prefix] = tag(dtype, 2)[0]
        target[:, prefix + 1 :] = matrix

    width = prefix + 1 + matrix.shape[1]
    used = prefix + 1 + sizes if missing is None else np.where(missing, prefix, prefix + 1 + sizes)
    head = Narrow(width=width, lengths=unless_full(used, width), fill=fill)
    return [head, text_piece(flat, lengths)], "Bc0" if short else "I4c0"


def _one_by_one(dtype: ValueType, column: pl.Series) -> tuple[list[Piece], str]:
    """Lists, sets and maps, which have no fixed shape to be clever about."""
    raw = [NULL if value is None else encode_value(dtype, _plain(value)) for value in column]
    lengths = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    flat = np.frombuffer(b"".join(raw), dtype=np.uint8)
    return [numbers(lengths, ">u4"), Long(flat=flat, lengths=lengths)], "I4c0"


def _plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, pl.Series) else value


def _varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Varints as a matrix of rows by the widest, and the size of each. A negative number takes ten bytes."""
    rest = np.ascontiguousarray(values, dtype=np.int64).view(np.uint64)
    largest = int(rest.max(initial=0))
    width = max(1, -(-largest.bit_length() // 7))
    sizes = np.ones(len(rest), dtype=np.int64)
    for place in range(1, width):
        sizes += rest >= np.uint64(1 << (7 * place))
    matrix = np.empty((len(rest), width), dtype=np.uint8)
    for place in range(width):
        digits = (rest >> np.uint64(7 * place)).astype(np.uint8)
        matrix[:, place] = np.where(sizes > place + 1, digits | 0x80, digits & 0x7F)
    return matrix, sizes


def _tagged_varints(head: int, values: np.ndarray) -> Narrow:
    """[tag][varint], or nothing for a zero."""
    matrix, sizes = _varints(values)

    def fill(target: np.ndarray) -> None:
        target[:, 0] = head
        target[:, 1:] = matrix

    width = matrix.shape[1] + 1
    return Narrow(width=width, lengths=unless_full(np.where(values == 0, 0, sizes + 1), width), fill=fill)


def _prefixed_by_length(parts: Sequence[Narrow]) -> Narrow:
    """The parts side by side after one byte with their common length, closed up."""
    width = sum(part.width for part in parts)
    if all(part.lengths is None for part in parts):
        return side_by_side([constant(bytes((width,))), *parts])
    rows = len(next(part.lengths for part in parts if part.lengths is not None))
    flat, lengths = block(parts, rows)
    piece = text_piece(flat, lengths)
    assert isinstance(piece, Narrow)  # noqa: S101 - two varints are never long

    def fill(target: np.ndarray) -> None:
        target[:, 0] = lengths
        piece.fill(target[:, 1:])

    return Narrow(width=piece.width + 1, lengths=unless_full(lengths + 1, piece.width + 1), fill=fill)
