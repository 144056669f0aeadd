"""Many replies to HMGET, values straight from the bytes that came: all numbers of a kind by a few array operations.

A parser of the protocol would first make an object of each field. Like `row_reply` this knows the shape of the replies
beforehand, and leaves whatever is of another shape to the parser: a refusal, a text with a line end in it, and where
few rows lack some value only those rows. Nothing is taken for granted: every length and every line end is looked at,
so that what is found here is what a parser finds. See https://redis.io/docs/reference/protocol-spec/
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import hiredis
import numpy as np

from tidemill.definitions.types import ValueType
from tidemill.online.bulk_numbers import Raw, as_doubles, varints_at
from tidemill.online.codec import WrongValueError, tag
from tidemill.online.reply_columns import GroupColumns
from tidemill.online.result import listed
from tidemill.online.row_reply import ReplyHead
from tidemill.online.value_memo import BulkMemo, FieldType

_STAR, _CR, _LF = b"*\r\n"
_MARGIN = bytes(16)
"""Behind the bytes, so that a whole word may be looked at wherever a value begins."""

_LONGEST = 999  # bytes of a value; longer ones are the parser's
_HEADS = [b"$%d" % size for size in range(_LONGEST + 1)]
_HEAD_SIZES = np.array([len(head) for head in _HEADS])
_HEAD_WORDS = np.array([int.from_bytes(head.rjust(4, b"\0"), "little") for head in _HEADS], dtype="<u4")
_HEAD_MASKS = np.array([-(1 << 8 * (4 - len(head))) & 0xFFFFFFFF for head in _HEADS], dtype="<u4")
"""What is before a value of each size, as the last bytes of a word, and which bytes of the word that are."""

_INT32 = 2**31

_ODD = (b"\r\n$-1\r\n", b"\r\n$0\r\n")
"""A value that is missing, and one that is null."""
_MOST_ODD = 0.1
"""Of the rows; where there are more, the parser is quicker with all of them."""


class TableReply:
    """Reads replies whose fields are of these types, the fixed-width numbers first."""

    def __init__(self, types: Sequence[FieldType], decode_row: Callable[[Raw], list[Any]]) -> None:
        """`decode_row` makes the values of one parsed reply."""
        self._fields, self._decode_row = len(types), decode_row
        self._head = head = ReplyHead(types)
        self._size = len(head.start)
        self._shape, self._mask = np.frombuffer(head.start, np.uint8), np.frombuffer(head.mask, np.uint8)
        first = head.start[: min(head.first, 8)]
        self._first, self._first_mask = (_word(part) for part in (first, b"\xff" * len(first)))
        self._readers: list[tuple[_Reader, int]] = []
        for dtype, some in groupby(head.others):
            self._readers.append((_reader(dtype), len(list(some))))

    def read(self, data: bytes, rows: int) -> GroupColumns | None:
        """A column for each field, in the order of the fields; arrays of float64 and int64 for numbers where no row is
        odd. None unless `data` is so many whole replies, most of them of the usual shape, and nothing else."""
        columns = self._usual(data, rows)
        return self._with_odd_rows(data, rows) if columns is None else GroupColumns(columns)

    def _usual(self, data: bytes, rows: int) -> list[Any] | None:
        """The columns where no row is odd, and so without a null."""
        found = bytearray().join((data, _MARGIN))
        try:
            starts = self._starts(found, rows)
            columns = self._take_numbers(found, starts)
            bulks = _Bulks(found, starts, self._size, len(self._head.others))
            for read, count in self._readers:
                columns += read(bulks, count)
        except (_UnusualError, WrongValueError, UnicodeDecodeError):
            return None
        return columns

    def _with_odd_rows(self, data: bytes, rows: int) -> GroupColumns | None:
        """The columns where some rows lack a value. Only those are parsed."""
        starts = _places(data, b"*%d\r\n$" % self._fields)
        if len(starts) != rows or starts[0]:
            return None
        odd = {bisect_right(starts, place) - 1 for mark in _ODD for place in _places(data, mark)}
        if not 0 < len(odd) <= rows * _MOST_ODD:
            return None
        parts = [data[start:end] for start, end in pairwise([*starts, len(data)])]
        usual = b"".join([part for row, part in enumerate(parts) if row not in odd])
        replies = {row: self._parsed(parts[row]) for row in sorted(odd)}
        found = None if None in replies.values() else self._usual(usual, rows - len(odd))
        if found is None:
            return None
        columns = [listed(column) for column in found]
        for row, reply in replies.items():
            for column, value in zip(columns, self._decode_row(reply), strict=True):  # type: ignore[arg-type] - none is None
                column.insert(row, value)
        return GroupColumns(columns, without_null=False)

    def _parsed(self, data: bytes) -> Raw | None:
        """The fields, if this is one whole reply and nothing else."""
        reader = hiredis.Reader()
        reader.feed(data)
        try:
            reply = reader.gets()
        except hiredis.ProtocolError:
            return None
        whole = type(reply) is list and len(reply) == self._fields and not reader.has_data()
        return reply if whole else None  # type: ignore[return-value] - a list is one of fields

    def _starts(self, data: bytearray, rows: int) -> np.ndarray:
        """Where each reply starts."""
        stars = (np.frombuffer(data, np.uint8) == _STAR).nonzero()[0]
        starts = stars[(_words(data)[stars] & self._first_mask) == self._first]
        if len(starts) != rows or starts[0] or starts[-1] + self._size > len(data) - len(_MARGIN):
            raise _UnusualError
        return starts

    def _take_numbers(self, data: bytearray, starts: np.ndarray) -> list[Any]:
        """What is of fixed width. Where it was is nothing afterwards: a number may look like the end of a line."""
        size, rows, wide, narrow = self._size, len(starts), self._head.wide, self._head.narrow
        places = np.ndarray((len(data) - size + 1,), f"V{size}", data, 0, (1,))
        heads = places[starts]
        table = heads.view(np.uint8).reshape(rows, size)
        if np.count_nonzero((table & self._mask) != self._shape):
            raise _UnusualError
        places[starts] = np.void(size)
        first = self._head.first
        doubles = np.ndarray((wide, rows), "<f8", table, first, (_WIDE, size))
        floats = np.ndarray((narrow, rows), "<f4", table, first + wide * _WIDE, (_NARROW, size))
        return [*as_doubles(doubles), *as_doubles(floats)]


def _words(data: bytes | bytearray, kind: str = "<u8") -> np.ndarray:
    """The number that begins at each byte."""
    return np.ndarray((len(data) - 7,), kind, data, 0, (1,))


def _places(data: bytes, mark: bytes) -> list[int]:
    """Where the mark begins."""
    places, place = [], data.find(mark)
    while place >= 0:
        places.append(place)
        place = data.find(mark, place + len(mark) - 2)
    return places


def _word(some: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(some, "little"))


_WIDE, _NARROW = len(b"$9\r\n)01234567\r\n"), len(b"$5\r\n50123\r\n")
"""Bytes from one number to the next of its width."""


class _UnusualError(Exception):
    """The bytes are not what they mostly are; the parser will know."""


class _Bulks:
    """Bulk strings in rows: `width` of them behind one another, `skipped` bytes after each of the `starts`, and nothing
    else before the next. Readers take them from the left."""

    def __init__(self, data: bytearray, starts: np.ndarray, skipped: int, width: int) -> None:
        self.rows, self.data = len(starts), data
        self.bytes = np.frombuffer(data, np.uint8)
        ends = ((self.bytes[:-1] == _CR) & (self.bytes[1:] == _LF)).nonzero()[0]
        if len(ends) != 2 * width * self.rows:
            raise _UnusualError
        lines, ends = ends[0::2].copy(), ends[1::2].copy()
        sizes = ends - lines
        sizes -= 2
        ends += 2
        begins = np.empty_like(ends)
        begins[1:] = ends[:-1]
        begins[::width] = starts + skipped
        if ends[-1] != len(data) - len(_MARGIN) or np.count_nonzero(ends[width - 1 : -1 : width] != starts[1:]):
            raise _UnusualError
        if not self._are_told(begins, lines, sizes):
            raise _UnusualError
        lines += 2
        self._starts = np.ascontiguousarray(lines.reshape(-1, width).T)
        self._sizes = np.ascontiguousarray(sizes.reshape(-1, width).T)
        self._taken = 0

    def take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of the next so many columns start, and how many bytes they have; column after column."""
        first, self._taken = self._taken, self._taken + count
        return self._starts[first : self._taken].reshape(-1), self._sizes[first : self._taken].reshape(-1)

    def words(self, places: np.ndarray, kind: str = "<u8") -> np.ndarray:
        """The numbers that start at these bytes."""
        return _words(self.data, kind)[places]

    def columns(self, values: Any) -> list[Any]:
        """Values of columns one after another, as columns."""
        return [values[start : start + self.rows] for start in range(0, len(values), self.rows)]

    def _are_told(self, begins: np.ndarray, lines: np.ndarray, sizes: np.ndarray) -> bool:
        """Whether each value has before it a dollar and its size, and nothing else."""
        heads = self.words(lines - 4, "<u4")
        heads &= _HEAD_MASKS.take(sizes, mode="clip")
        wrong = heads != _HEAD_WORDS.take(sizes, mode="clip")
        wrong |= (lines - begins) != _HEAD_SIZES.take(sizes, mode="clip")
        return not np.count_nonzero(wrong)


_Reader = Callable[[_Bulks, int], list[Any]]
"""Makes columns of the next so many ones."""


def _whole_numbers(dtype: ValueType, bulks: _Bulks, count: int) -> list[Any]:
    starts, sizes = bulks.take(count)
    if np.count_nonzero(bulks.bytes.take(starts) != tag(dtype, 0)[0]):
        raise _UnusualError
    found = _checked(varints_at(bulks.words, starts + 1, sizes - 1))
    if dtype is ValueType.INT32 and np.count_nonzero((found >= _INT32) | (found < -_INT32)):
        raise _UnusualError
    return bulks.columns(found)


def _texts(bulks: _Bulks, count: int) -> list[Any]:
    """Texts of up to 127 bytes."""
    starts, sizes = bulks.take(count)
    sizes = sizes - 2
    if np.count_nonzero(bulks.words(starts, "<u2") != (sizes << 8 | _TEXT)) or sizes.max() > 127:
        raise _UnusualError
    sizes += 1  # the line end divides it from the next
    ends = sizes.cumsum()
    starts = starts + 2
    starts += sizes
    starts -= ends
    places = starts.repeat(sizes)
    places += np.arange(len(places))
    found = bulks.bytes.take(places).tobytes().decode().split("\r")
    if len(found) != len(sizes) + 1:
        raise _UnusualError
    return bulks.columns(found[:-1])


def _times(bulks: _Bulks, count: int) -> list[Any]:
    """Seconds in five bytes, and mostly nothing more."""
    starts, sizes = bulks.take(count)
    if sizes.min() < 6 or np.count_nonzero(bulks.bytes.take(starts) != 0x08):
        raise _UnusualError
    micros = _checked(varints_at(bulks.words, starts + 1, _FIVE.repeat(len(sizes)))) * 1_000_000
    finer = (sizes > 6).nonzero()[0]
    if len(finer):
        starts, sizes = starts[finer] + 6, sizes[finer] - 7
        if np.count_nonzero(bulks.bytes.take(starts) != 0x10):
            raise _UnusualError
        micros[finer] += _checked(varints_at(bulks.words, starts + 1, sizes)) // 1_000
    return bulks.columns(micros.tolist())


def _looked_up(memo: BulkMemo, bulks: _Bulks, count: int) -> list[Any]:
    """Any other values, one by one."""
    starts, sizes = bulks.take(count)
    spans = zip((starts - 2 - _HEAD_SIZES[sizes] + 1).tolist(), (starts + sizes).tolist(), strict=True)
    found = [memo[bytes(bulks.data[begin:end])] for begin, end in spans]
    if None in found:
        raise _UnusualError
    return bulks.columns(found)


def _checked(numbers: np.ndarray | None) -> np.ndarray:
    if numbers is None:
        raise _UnusualError
    return numbers


_TEXT, _FIVE = tag(ValueType.STRING, 2)[0], np.array([5])


def _reader(dtype: FieldType) -> _Reader:
    if dtype is None:
        return _times
    if dtype is ValueType.STRING:
        return _texts
    if dtype in (ValueType.INT64, ValueType.INT32):
        return partial(_whole_numbers, dtype)
    return partial(_looked_up, BulkMemo(dtype))
