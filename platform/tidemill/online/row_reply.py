"""One reply to HMGET, values straight from the bytes that came: numbers of fixed width by one `struct` call, the others
by look-up.

A parser of the protocol would first make an object of each field. This knows the shape of the reply beforehand, and
leaves whatever is of another shape to the parser: a number that is missing or null, an error, a reply that is not there
whole, a text with a line end and a dollar in it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError, tag
from tidemill.online.value_memo import BulkMemo, FieldType

_END, _BETWEEN = b"\r\n", b"\r\n$"
_WIDTHS = {ValueType.DOUBLE: ("d", 8, 1), ValueType.FLOAT: ("f", 4, 5)}
"""Layout, size and wire type of the numbers that always take as many bytes."""


class ReplyHead:
    """The beginning of a reply, up to where the `others` begin: the values that have no fixed width.

    In `start` it is as it comes, but for the numbers, which are zero; in the `mask` they are zero too, and all else is
    255. `first` of its bytes come before the first number, of which so many are `wide` and then so many `narrow`.
    """

    def __init__(self, types: Sequence[FieldType]) -> None:
        self.wide, self.narrow = (types.count(dtype) for dtype in _WIDTHS)
        self.others = types[self.wide + self.narrow :]
        self.start = self.mask = b""
        self.layout = "<"
        self._add(b"*%d\r\n" % len(types))
        self.first = 0
        for dtype in types[: self.wide + self.narrow]:
            letter, size, wire = _WIDTHS[dtype]  # type: ignore[index]
            self._add(b"$%d\r\n" % (size + 1) + tag(dtype, wire))  # type: ignore[arg-type]
            self.first = self.first or len(self.start)
            self._add(bytes(size), number=letter)
            self._add(_END)
        self.first = self.first or len(self.start)

    def _add(self, some: bytes, *, number: str = "") -> None:
        self.start += some
        self.mask += bytes(len(some)) if number else b"\xff" * len(some)
        self.layout += number or f"{len(some)}x"


class RowReply:
    """Reads replies whose fields are of these types, the fixed-width numbers first."""

    def __init__(self, types: Sequence[FieldType]) -> None:
        found = ReplyHead(types)
        head, mask = found.start + b"$", found.mask + b"\xff"  # the others begin
        self._unpack = struct.Struct(found.layout).unpack_from
        self._start = len(head)
        self._head, self._mask = int.from_bytes(head, "little"), int.from_bytes(mask, "little")
        self._others = len(found.others)
        self._look_ups = _runs(found.others)

    def read(self, data: bytes) -> list[Any] | None:
        """The values, in the order of the fields; None unless `data` is one whole reply of the usual shape."""
        start = self._start
        if int.from_bytes(data[:start], "little") & self._mask != self._head or data[-2:] != _END:
            return None
        bulks = data[start:-2].split(_BETWEEN)
        if len(bulks) != self._others:
            return None
        row = [*self._unpack(data)]
        try:
            for look_up, first, last in self._look_ups:
                row += map(look_up, bulks[first:last])
        except WrongValueError:
            return None
        return row


def _runs(types: Sequence[FieldType]) -> list[tuple[Any, int, int]]:
    """Neighbours of one type, from the first of them to the last, and how they are looked up. Fields of one type share
    a memo, and so its place in the processor's caches."""
    memos = {dtype: BulkMemo(dtype).__getitem__ for dtype in types}
    runs, start = [], 0
    for dtype, some in groupby(types):
        end = start + len(list(some))
        runs.append((memos[dtype], start, end))
        start = end
    return runs
