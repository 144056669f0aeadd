"""Columns whose pages hold nothing but their values, one after the other: read from the file straight into memory.

So lie numbers and times that were written without compression, without a dictionary and without nulls, whoever wrote
them. A general reader takes such pages apart value by value; here only the headers of pages are looked at, and what
lies between them is copied as it is. Anything else (another encoding, a null, a header that makes no sense) is left to
the general reader, which also says what is wrong with a damaged file.

Headers are structs in Thrift's compact protocol, as `parquet.thrift` of the Parquet format has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_PHYSICAL: dict[pa.DataType, str] = {
    pa.int64(): "INT64",
    pa.int32(): "INT32",
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
}
_UNITS = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_PLAIN_OR_LEVELS = {"PLAIN", "RLE", "BIT_PACKED"}
_HEADER_BYTES = 512
"""Enough for the header of a page and the levels behind it; one that is longer is left to the general reader."""
_PLAIN = 0
_DATA_PAGE, _INDEX_PAGE, _DATA_PAGE_V2 = 0, 1, 3


class _NotPlainError(Exception):
    """A page that only the general reader understands."""


@dataclass(frozen=True, kw_only=True)
class PlainPages:
    """The values of one column of one row group: `places` are (first byte, number of values), page by page."""

    width: int
    places: Sequence[tuple[int, int]]

    @property
    def rows(self) -> int:
        return sum(number for _, number in self.places)

    @property
    def size(self) -> int:
        """Bytes of all values together."""
        return self.rows * self.width

    def read_into(self, file: int, room: memoryview, *, first: int = 0) -> None:
        """Fill the room, in bytes, with the values from the `first` on.

        Raises OSError where the file is shorter than it was.
        """
        start, skip = 0, first
        for at, number in self.places:
            if skip >= number:
                skip -= number
                continue
            at, end = at + skip * self.width, min(len(room), start + (number - skip) * self.width)
            skip = 0
            while start < end:
                got = os.preadv(file, [room[start:end]], at)
                if not got:
                    raise OSError("the file ends within a page")
                start, at = start + got, at + got


def can_lie_plain(stored: pa.DataType, column: pq.ColumnSchema) -> bool:
    """Whether values of this type, in pages without anything else, are the bytes of a NumPy array."""
    if column.max_repetition_level or column.max_definition_level > 1:
        return False
    if pa.types.is_timestamp(stored):
        # A file may be read as another unit than it is stored in.
        return column.physical_type == "INT64" and _UNITS.get(stored.unit, "?") in str(column.logical_type)
    return _PHYSICAL.get(stored) == column.physical_type


def plain_pages(
    file: int, chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema, stored: pa.DataType
) -> PlainPages | None:
    """Where the values of a column of a row group lie in an open file; None where they have to be decoded.

    `column` must be one that `can_lie_plain`.
    """
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or not set(chunk.encodings) <= _PLAIN_OR_LEVELS:
        return None
    width = stored.bit_width // 8
    at, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
    places: list[tuple[int, int]] = []
    try:
        while at < end:
            page = _page(os.pread(file, _HEADER_BYTES, at), at, width, column.max_definition_level)
            at = page.end
            if page.number:
                places.append((page.first, page.number))
    except _NotPlainError:
        return None
    if at != end or sum(number for _, number in places) != chunk.num_values:
        return None
    return PlainPages(width=width, places=places)


@dataclass(frozen=True, kw_only=True)
class _Page:
    first: int
    number: int
    end: int


def _page(raw: bytes, at: int, width: int, deepest: int) -> _Page:
    """The page whose header begins with `raw`, at a place in the file."""
    header, start = _Struct(raw).read()
    kind, size = header.get(1), header.get(3)
    if not isinstance(size, int) or header.get(2) != size:
        raise _NotPlainError
    if kind == _INDEX_PAGE:
        return _Page(first=0, number=0, end=at + start + size)
    if kind == _DATA_PAGE:
        number, encoding = _both(header.get(5), 1, 2)
        levels = _levels_of_all(raw, start, number) if deepest else 0
    elif kind == _DATA_PAGE_V2:
        number, encoding = _both(header.get(8), 1, 4)
        nulls, levels = _both(header.get(8), 2, 5)
        if nulls or _both(header.get(8), 5, 6)[1]:
            raise _NotPlainError
    else:
        raise _NotPlainError
    if encoding != _PLAIN or number < 0 or size != levels + number * width:
        raise _NotPlainError
    return _Page(first=at + start + levels, number=number, end=at + start + size)


def _both(header: Any, one: int, other: int) -> tuple[int, int]:
    found = (header.get(one), header.get(other)) if isinstance(header, dict) else (None, None)
    if not isinstance(found[0], int) or not isinstance(found[1], int):
        raise _NotPlainError
    return found[0], found[1]


def _levels_of_all(raw: bytes, start: int, number: int) -> int:
    """The bytes that definition levels take, where they are one run that says of all values that they are there."""
    size = int.from_bytes(raw[start : start + 4], "little")
    run = _Struct(raw, start + 4)
    length = run.varint()
    is_one_run = not length & 1 and length >> 1 >= number and run.byte() == 1
    if number and (not is_one_run or run.at != start + 4 + size):
        raise _NotPlainError
    return 4 + size


class _Struct:
    """A struct in Thrift's compact protocol, as a dict of its fields by number. Bytes and doubles are passed over."""

    def __init__(self, raw: bytes, at: int = 0) -> None:
        self._raw = raw
        self.at = at

    def read(self) -> tuple[dict[int, Any], int]:
        """The fields, and where the struct ends."""
        return self._fields(), self.at

    def byte(self) -> int:
        if self.at >= len(self._raw):
            raise _NotPlainError
        self.at += 1
        return self._raw[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise _NotPlainError

    def _fields(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            fields[number] = self._value(head & 0x0F)
        return fields

    def _whole(self) -> int:
        zigzag = self.varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self.byte()
            case 4 | 5 | 6:
                return self._whole()
            case 7:
                self.at += 8
            case 8:
                length = self.varint()
                self.at += length
            case 12:
                return self._fields()
            case _:
                raise _NotPlainError
        return None
