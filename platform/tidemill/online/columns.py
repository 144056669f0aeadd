"""Whole columns into bytes: what `codec` and `keys` do for one value, for a frame at once and without Python's loop.

A row's bytes are laid out as pieces side by side. A piece knows how wide it is in each row; narrow pieces are filled
into a matrix of rows by width and the unused cells masked out, long texts are copied by their offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.online.codec import NULL, encode_value, tag

Bytes = np.ndarray
"""A flat array of uint8."""

_WIDEST_IN_MATRIX = 96
_FIXED_NUMBERS = {ValueType.DOUBLE: ("<f8", 8), ValueType.FLOAT: ("<f4", 4)}


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
        _over(target, 0, kind)[:] = values

    return Narrow(width=kind.itemsize, lengths=None, fill=fill)


def timestamps(micros: np.ndarray) -> Narrow:
    """A Timestamp message for each instant, after one byte that says how long it is."""
    seconds = micros // 1_000_000
    nanos = (micros - seconds * 1_000_000) * 1_000
    parts = [_tagged_varints(0x08, seconds), _tagged_varints(0x10, nanos)]
    return _prefixed_by_length(parts)


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
        flat, lengths = _flat(column)
        head = constant(np.array([dtype], dtype="<u4").tobytes())
        return [head, numbers(lengths, "<u4"), _text_piece(flat, lengths)]
    size, kind = (4, "<i4") if dtype is ValueType.INT32 else (8, "<i8")
    values = _seconds(column) if dtype is ValueType.UNIX_TIMESTAMP else column.to_numpy()
    return [constant(np.array([dtype, size], dtype="<u4").tobytes()), numbers(values, kind)]


def plain_texts(column: pl.Series) -> tuple[np.ndarray, Piece]:
    """How long each text is in bytes (0 for null), and the texts."""
    flat, lengths = _flat(column)
    return lengths, _text_piece(flat, lengths)


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


def _blocks(pieces: Sequence[Piece], rows: int) -> list[tuple[Bytes, np.ndarray]]:
    """Neighbouring narrow pieces as one flat block each, long ones as they are."""
    blocks: list[tuple[Bytes, np.ndarray]] = []
    narrow: list[Narrow] = []
    for piece in pieces:
        if isinstance(piece, Narrow):
            narrow.append(piece)
            continue
        if narrow:
            blocks.append(_block(narrow, rows))
            narrow = []
        blocks.append((piece.flat, piece.lengths))
    if narrow or not blocks:
        blocks.append(_block(narrow, rows))
    return blocks


def _block(pieces: Sequence[Narrow], rows: int) -> tuple[Bytes, np.ndarray]:
    matrix, used, lengths = fill_matrix(pieces, rows)
    return (matrix.reshape(-1) if used is None else matrix[used]), lengths


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


def _fixed_numbers(dtype: ValueType, column: pl.Series) -> Narrow:
    """[length][tag][number] for a float of either width; [0] for null."""
    kind, size = _FIXED_NUMBERS[dtype]
    values = filled(column, 0.0).to_numpy()
    head = np.frombuffer(bytes((size + 1,)) + tag(dtype, 1 if size == 8 else 5), dtype=np.uint8)
    missing = column.is_null().to_numpy() if column.null_count() else None

    def fill(target: np.ndarray) -> None:
        target[:, :2] = head
        _over(target, 2, np.dtype(kind))[:] = values
        if missing is not None:
            target[missing, 0] = 0

    lengths = None if missing is None else np.where(missing, 1, size + 2)
    return Narrow(width=size + 2, lengths=lengths, fill=fill)


def _whole_numbers(dtype: ValueType, column: pl.Series) -> Narrow:
    """[length][tag][varint] for integers, booleans and instants; [0] for null."""
    missing = column.is_null().to_numpy() if column.null_count() else None
    if dtype is ValueType.UNIX_TIMESTAMP:
        values = _seconds(column)
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
    return Narrow(width=matrix.shape[1] + 2, lengths=_unless_full(lengths, matrix.shape[1] + 2), fill=fill)


def _texts(dtype: ValueType, column: pl.Series) -> tuple[list[Piece], str]:
    """[length][tag][varint of the text's length][text]; an empty text is not null."""
    flat, lengths = _flat(column)
    missing = column.is_null().to_numpy() if column.null_count() else None
    matrix, sizes = _varints(lengths)
    total = lengths + sizes + 1
    short = int(total.max(initial=0)) <= 255
    prefix = 1 if short else 4
    kind = np.dtype("u1" if short else ">u4")
    stated = total if missing is None else np.where(missing, 0, total)

    def fill(target: np.ndarray) -> None:
        _over(target, 0, kind)[:] = stated
        target[:, prefix] = tag(dtype, 2)[0]
        target[:, prefix + 1 :] = matrix

    width = prefix + 1 + matrix.shape[1]
    used = prefix + 1 + sizes if missing is None else np.where(missing, prefix, prefix + 1 + sizes)
    head = Narrow(width=width, lengths=_unless_full(used, width), fill=fill)
    return [head, _text_piece(flat, lengths)], "Bc0" if short else "I4c0"


def _one_by_one(dtype: ValueType, column: pl.Series) -> tuple[list[Piece], str]:
    """Lists, sets and maps, which have no fixed shape to be clever about."""
    raw = [NULL if value is None else encode_value(dtype, _plain(value)) for value in column]
    lengths = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    flat = np.frombuffer(b"".join(raw), dtype=np.uint8)
    return [numbers(lengths, ">u4"), Long(flat=flat, lengths=lengths)], "I4c0"


def _plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, pl.Series) else value


def _text_piece(flat: Bytes, lengths: np.ndarray) -> Piece:
    """Short texts go into the matrix, where they cost a mask; long ones are copied by offset."""
    width = int(lengths.max(initial=0))
    if width > _WIDEST_IN_MATRIX:
        return Long(flat=flat, lengths=lengths)

    def fill(target: np.ndarray) -> None:
        if len(flat) == target.size:
            target[:] = flat.reshape(target.shape)
        else:
            target[np.arange(width) < lengths[:, None]] = flat

    return Narrow(width=width, lengths=_unless_full(lengths, width), fill=fill)


def _flat(column: pl.Series) -> tuple[Bytes, np.ndarray]:
    """A text column's bytes without gaps, and the length of each value (0 for null)."""
    array = filled(column.cast(pl.Binary), b"").to_arrow()
    import pyarrow as pa

    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    flat = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    return flat[offsets[0] : offsets[-1]], np.diff(offsets)


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
    return Narrow(width=width, lengths=_unless_full(np.where(values == 0, 0, sizes + 1), width), fill=fill)


def _prefixed_by_length(parts: Sequence[Narrow]) -> Narrow:
    """The parts side by side after one byte with their common length, closed up."""
    width = sum(part.width for part in parts)
    if all(part.lengths is None for part in parts):
        return _side_by_side([constant(bytes((width,))), *parts])
    rows = len(next(part.lengths for part in parts if part.lengths is not None))
    flat, lengths = _block(parts, rows)
    piece = _text_piece(flat, lengths)
    assert isinstance(piece, Narrow)  # noqa: S101 - two varints are never long

    def fill(target: np.ndarray) -> None:
        target[:, 0] = lengths
        piece.fill(target[:, 1:])

    return Narrow(width=piece.width + 1, lengths=_unless_full(lengths + 1, piece.width + 1), fill=fill)


def _side_by_side(parts: Sequence[Narrow]) -> Narrow:
    """Parts of fixed width as one."""

    def fill(target: np.ndarray) -> None:
        start = 0
        for part in parts:
            part.fill(target[:, start : start + part.width])
            start += part.width

    return Narrow(width=sum(part.width for part in parts), lengths=None, fill=fill)


def _unless_full(lengths: np.ndarray, width: int) -> np.ndarray | None:
    return None if len(lengths) and int(lengths.min()) == width else lengths


def _over(target: np.ndarray, start: int, kind: np.dtype) -> np.ndarray:
    """The bytes from `start` of each row of `target`, seen as one number; writing goes through to the rows."""
    cells = target[:, start : start + kind.itemsize]
    return np.lib.stride_tricks.as_strided(
        np.ndarray((0,), dtype=kind) if not len(cells) else _as_number(cells, kind),
        shape=(len(cells),),
        strides=(target.strides[0],),
        writeable=True,
    )


def _as_number(cells: np.ndarray, kind: np.dtype) -> np.ndarray:
    return np.ndarray((1,), dtype=kind, buffer=cells[0].data)


def _seconds(column: pl.Series) -> np.ndarray:
    """Whole seconds since 1970, rounded down: Feast's format has no more. Null is 0."""
    if column.dtype.is_temporal():
        return micros_of(column) // 1_000_000
    return filled(column.cast(pl.Int64), 0).to_numpy()


def micros_of(column: pl.Series, *, missing: int = 0) -> np.ndarray:
    """Microseconds since 1970 UTC; null is `missing`."""
    return filled(column.cast(pl.Datetime("us", "UTC")).cast(pl.Int64), missing).to_numpy()


def filled(column: pl.Series, value: Any) -> pl.Series:
    """The column with `value` for null. Most have none, and asking is quicker than Polars's way of filling nothing."""
    return column.fill_null(value) if column.null_count() else column


def as_declared(dtype: ValueType, column: pl.Series) -> pl.Series:
    """The column in its declared type. Raises InputError where a value would change by that."""
    wanted = dtype.polars()
    if wanted is None or column.dtype == wanted:
        return column
    if dtype is ValueType.STRING and isinstance(column.dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if dtype is ValueType.UNIX_TIMESTAMP and isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is None:
        column = column.dt.replace_time_zone("UTC")
    mixed = (column.dtype == pl.String) != (wanted == pl.String) and column.dtype != pl.Null and not dtype.is_list
    try:
        if mixed:
            raise TypeError(f"they are {column.dtype}")
        if dtype.is_integer and column.dtype.is_float() and (column.drop_nulls() % 1 != 0).any():
            raise TypeError("they are not whole numbers")
        return column.cast(wanted, strict=True)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise InputError(
            f"The values of {column.name!r} are not {dtype.name}: {error}.",
            hint="Change the source, or the declared type, and apply.",
        ) from error


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
