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


class RowReply:
    """Reads replies whose fields are of these types, the fixed-width numbers first."""

    def __init__(self, types: Sequence[FieldType]) -> None:
        head = b"*%d\r\n" % len(types)
        layout, mask = f"<{len(head)}x", b"\xff" * len(head)
        numbers = [dtype for dtype in types if dtype in _WIDTHS]
        for dtype in numbers:
            letter, size, wire = _WIDTHS[dtype]  # type: ignore[index]
            start = b"$%d\r\n" % (size + 1) + tag(dtype, wire)  # type: ignore[arg-type]
            head += start + bytes(size) + _END
            mask += b"\xff" * len(start) + bytes(size) + b"\xff" * len(_END)
            layout += f"{len(start)}x{letter}{len(_END)}x"
        self._unpack = struct.Struct(layout).unpack_from
        head, mask = head + b"$", mask + b"\xff"  # the others begin
        self._start = len(head)
        self._head, self._mask = int.from_bytes(head, "little"), int.from_bytes(mask, "little")
        others = types[len(numbers) :]
        self._others = len(others)
        self._look_ups = _runs(others)

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
