"""Raw replies into columns of values, fast where all is as expected and exact everywhere else.

The fields of one HMGET are decoded by kind, all columns and rows of a kind together: fixed-width numbers as one array
of records, whole numbers and instants by a few array operations, texts through a memo of bounded size, since they
repeat. What does not look as expected is decoded value by value (`value_memo`), and bytes that are no value of the
declared type become null and are counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain
from operator import getitem, itemgetter
from typing import Any

import numpy as np

from tidemill.definitions.types import ValueType
from tidemill.online.bulk_numbers import Raw, instants_by_length, varints
from tidemill.online.codec import tag
from tidemill.online.value_memo import FieldType, Memo, WrongValues, memo_of

__all__ = ["FieldDecoder", "FieldType", "WrongValues"]

Replies = Sequence[Sequence[bytes | None]]
"""One reply for each row: its fields in the order of the command."""

Decoded = tuple[list[list[Any]], bool]
"""Columns of values, and whether it is certain that no feature among them is null."""

_ENOUGH_FOR_NUMPY = 128
_BULK = {ValueType.DOUBLE: ("xd", 9, b"\x29"), ValueType.FLOAT: ("xf", 5, b"\x35")}
_WHOLE = {ValueType.INT64, ValueType.INT32}


class FieldDecoder:
    """Decodes the fields of one HMGET. `fields` gives each field's name (`view:feature`) and type, in the order of
    the command. `row_places` tells for each field where `decode_row` leaves it."""

    def __init__(self, fields: Sequence[tuple[str, FieldType]], wrong: WrongValues) -> None:
        self.width = len(fields)
        by_kind: dict[Any, list[int]] = {}
        for place, (_, dtype) in enumerate(fields):
            by_kind.setdefault(_kind(dtype), []).append(place)
        memos = [memo_of(name, dtype, wrong) for name, dtype in fields]
        self._kinds = [
            _KINDS[kind](places, [memos[place] for place in places], fields[places[0]][1])
            for kind, places in by_kind.items()
        ]
        row = _RowDecoder([dtype for _, dtype in fields], memos)
        self.decode_row, self.row_places, self.row_width = row.decode, row.places, self.width

    def decode(self, replies: Replies) -> Decoded:
        """One column for each field, with a value for each reply."""
        if len(replies) == 1:
            row = self.decode_row(replies[0])
            return [[row[place]] for place in self.row_places], None not in row
        columns: list[list[Any]] = [[]] * self.width
        without_null = True
        if replies:
            found = list(zip(*replies, strict=True))
            for kind in self._kinds:
                decoded, certain = kind.decode([found[place] for place in kind.places])
                without_null = without_null and certain
                for place, column in zip(kind.places, decoded, strict=True):
                    columns[place] = column
        return columns, without_null


class _RowDecoder:
    """Decodes one reply: its fixed-width numbers by one `struct` call, then all other fields through their memos."""

    def __init__(self, dtypes: Sequence[FieldType], memos: Sequence[Memo]) -> None:
        parts = [[place for place, found in enumerate(dtypes) if found is dtype] for dtype in _BULK]
        numbers = [place for part in parts for place in part]
        others = [place for place in range(len(dtypes)) if place not in set(numbers)]
        order = numbers + others
        self.places = [order.index(place) for place in range(len(dtypes))]
        self._take_numbers, self._take_others = _taker(numbers), _taker(others)
        self._number_memos, self._other_memos = [memos[at] for at in numbers], [memos[at] for at in others]
        (_, self._wide, wide_tag), (_, self._narrow, narrow_tag) = _BULK.values()
        self._split = self._wide * len(parts[0])
        self._size = self._split + self._narrow * len(parts[1])
        self._wide_tags, self._narrow_tags = wide_tag * len(parts[0]), narrow_tag * len(parts[1])
        layouts = (layout * len(part) for (layout, _, _), part in zip(_BULK.values(), parts, strict=True))
        self._unpack = struct.Struct("<" + "".join(layouts)).unpack

    def decode(self, reply: Raw) -> list[Any]:
        """The values, in the order of `places`."""
        raw, split = self._take_numbers(reply), self._split
        try:
            joined = b"".join(raw)  # type: ignore[arg-type]
        except TypeError:  # a field that is not there
            joined = b""
        values: list[Any] = []
        if (
            len(joined) == self._size
            and joined[: split : self._wide] == self._wide_tags
            and joined[split :: self._narrow] == self._narrow_tags
        ):
            values += self._unpack(joined)
        else:
            values += map(getitem, self._number_memos, raw)
        values += map(getitem, self._other_memos, self._take_others(reply))
        return values


class _Kind:
    """Fields of one wire type, whatever it is: each value through its field's memo."""

    def __init__(self, places: Sequence[int], memos: Sequence[Memo], dtype: FieldType) -> None:
        self.places, self.dtype = places, dtype
        self._look_ups = [memo.__getitem__ for memo in memos]

    def decode(self, columns: Sequence[Raw]) -> Decoded:
        """A column of values for each column of raw bytes."""
        found = [list(map(look_up, column)) for look_up, column in zip(self._look_ups, columns, strict=True)]
        return found, all(all(column) or None not in column for column in found)  # mostly not even a zero is there


class _FixedWidth(_Kind):
    """[tag][number] everywhere at once. A null or a wrong value shows by its length or its tag."""

    def __init__(self, places: Sequence[int], memos: Sequence[Memo], dtype: FieldType) -> None:
        super().__init__(places, memos, dtype)
        _, self._size, self._tag = _BULK[dtype]  # type: ignore[index]
        self._record = np.dtype([("tag", "u1"), ("number", f"<f{self._size - 1}")])

    def decode(self, columns: Sequence[Raw]) -> Decoded:
        rows = len(columns[0])
        try:
            joined = b"".join(chain.from_iterable(columns))  # type: ignore[arg-type]
        except TypeError:
            return super().decode(columns)
        count = rows * len(columns)
        if len(joined) != self._size * count or joined[:: self._size] != self._tag * count:
            return super().decode(columns)
        return np.frombuffer(joined, dtype=self._record)["number"].reshape(-1, rows).tolist(), True


class _WholeNumbers(_Kind):
    """[tag][varint] everywhere at once."""

    def decode(self, columns: Sequence[Raw]) -> Decoded:
        rows = len(columns[0])
        if rows * len(columns) < _ENOUGH_FOR_NUMPY:
            return super().decode(columns)
        raw = list(chain.from_iterable(columns))
        try:
            found = varints(raw, tag(self.dtype, 0)[0])  # type: ignore[arg-type]
        except (TypeError, ValueError):
            found = None
        return super().decode(columns) if found is None else (_split(found, rows), True)


class _Times(_Kind):
    """Timestamp messages into microseconds; None where there is none or where it is no Timestamp."""

    def decode(self, columns: Sequence[Raw]) -> Decoded:
        rows = len(columns[0])
        raw = list(chain.from_iterable(columns))
        if len(raw) < _ENOUGH_FOR_NUMPY or None in raw:
            return super().decode(columns)
        lengths = set(map(len, raw))  # type: ignore[arg-type]
        found = instants_by_length(raw, lengths)  # type: ignore[arg-type]
        return super().decode(columns) if found is None else (_split(found, rows), True)


def _split(values: list[Any], rows: int) -> list[list[Any]]:
    return [values[start : start + rows] for start in range(0, len(values), rows)]


def _kind(dtype: FieldType) -> Any:
    return dtype if dtype is None or dtype in _BULK or dtype in _WHOLE else "other"


_KINDS: dict[Any, type[_Kind]] = {
    **dict.fromkeys(_BULK, _FixedWidth),
    **dict.fromkeys(_WHOLE, _WholeNumbers),
    None: _Times,
    "other": _Kind,
}


def _taker(places: Sequence[int]) -> Callable[[Raw], Sequence[bytes | None]]:
    if not places:
        return lambda _: ()
    if len(places) == 1:
        place = places[0]
        return lambda reply: (reply[place],)
    if list(places) == list(range(places[0], places[-1] + 1)):
        return itemgetter(slice(places[0], places[-1] + 1))
    return itemgetter(*places)
