"""Raw replies into columns of values, fast where all is as expected and exact everywhere else.

The fields of one HMGET are decoded by kind, all columns and rows of a kind together: fixed-width numbers as one array
of records, whole numbers and instants by a few array operations, texts through a memo of bounded size, since they
repeat. What does not look as expected is decoded value by value (`value_memo`), and bytes that are no value of the
declared type become null and are counted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import getitem
from typing import Any

import numpy as np

from tidemill.definitions.types import ValueType
from tidemill.online.bulk_numbers import Raw, as_doubles, instants_by_length, varints
from tidemill.online.codec import tag
from tidemill.online.value_memo import FieldType, Memo, WrongValues, memo_of

__all__ = ["FieldDecoder", "FieldType", "WrongValues"]

Replies = Sequence[Raw]
"""One reply for each row: its fields in the order of the command."""

Decoded = tuple[list[Any], bool]
"""Columns of values, and whether it is certain that no feature among them is null."""

_ENOUGH_FOR_NUMPY = 128
_BULK = {ValueType.DOUBLE: ("xd", 9, b"\x29"), ValueType.FLOAT: ("xf", 5, b"\x35")}
_WHOLE = {ValueType.INT64, ValueType.INT32}


class FieldDecoder:
    """Decodes the fields of one HMGET. `fields` gives each field's name (`view:feature`) and type. They are to be asked
    for in the order of `order`, those of a kind side by side, and then have these `types`; `row_places` tells for each
    where `decode_row` leaves it.
    """

    def __init__(self, fields: Sequence[tuple[str, FieldType]], wrong: WrongValues) -> None:
        by_kind: dict[FieldType, list[int]] = {kind: [] for kind in _BULK}
        for place, (_, dtype) in enumerate(fields):
            by_kind.setdefault(dtype, []).append(place)
        self.width = self.row_width = len(fields)
        self.order = [place for places in by_kind.values() for place in places]
        self.row_places = [self.order.index(place) for place in range(len(fields))]
        self.types = [fields[place][1] for place in self.order]
        memos = [memo_of(*fields[place], wrong) for place in self.order]
        self._kinds: list[_Kind] = []
        for kind, places in by_kind.items():
            if places:
                start = self.order.index(places[0])
                end = start + len(places)
                self._kinds.append(_KINDS.get(kind, _Kind)(start, end, memos[start:end], kind))
        self.decode_row = _RowDecoder([len(by_kind[dtype]) for dtype in _BULK], memos).decode

    def decode(self, replies: Replies) -> Decoded:
        """One column for each field, with a value for each reply."""
        return self._decode(replies, arrays=False)

    def decode_arrays(self, replies: Replies) -> Decoded:
        """The same with arrays of float64 or int64 for columns of numbers, where no null is among them."""
        return self._decode(replies, arrays=True)

    def _decode(self, replies: Replies, *, arrays: bool) -> Decoded:
        if len(replies) == 1:
            row = self.decode_row(replies[0])
            return [[row[place]] for place in self.row_places], None not in row
        if not replies:
            return [[] for _ in self.order], True
        try:
            return self._by_kind(replies, arrays)
        except _GapError:
            columns = [list(column) for column in zip(*map(self.decode_row, replies), strict=True)]
            return [columns[place] for place in self.row_places], False

    def _by_kind(self, replies: Replies, arrays: bool) -> Decoded:
        """Raises _GapError where a number of fixed width is missing, null or wrong."""
        columns: list[Any] = []
        without_null = True
        found = list(zip(*replies, strict=True))
        for kind in self._kinds:
            some = found[kind.start : kind.end]
            decoded, certain = kind.decode_arrays(some) if arrays else kind.decode(some)
            without_null = without_null and certain
            columns += decoded
        return [columns[place] for place in self.row_places], without_null


class _GapError(Exception):
    """There is not everywhere a number: row by row is quicker, since most rows have all of theirs."""


class _RowDecoder:
    """Decodes one reply: its fixed-width numbers, which come first, by one `struct` call, then all other fields through
    their memos. `counts` tells how many numbers of each width there are."""

    def __init__(self, counts: Sequence[int], memos: Sequence[Memo]) -> None:
        self._numbers = sum(counts)
        self._number_memos, self._other_memos = memos[: self._numbers], memos[self._numbers :]
        (_, self._wide, wide_tag), (_, self._narrow, narrow_tag) = _BULK.values()
        self._split = self._wide * counts[0]
        self._size = self._split + self._narrow * counts[1]
        self._wide_tags, self._narrow_tags = wide_tag * counts[0], narrow_tag * counts[1]
        layouts = (layout * count for (layout, _, _), count in zip(_BULK.values(), counts, strict=True))
        self._unpack = struct.Struct("<" + "".join(layouts)).unpack

    def decode(self, reply: Raw) -> list[Any]:
        """The values, in the order of the reply."""
        count, split = self._numbers, self._split
        raw = reply[:count]
        try:
            joined = b"".join(raw)  # type: ignore[arg-type]
        except TypeError:  # a field that is not there
            joined = b""
        if (
            len(joined) == self._size
            and joined[: split : self._wide] == self._wide_tags
            and joined[split :: self._narrow] == self._narrow_tags
        ):
            numbers: Iterable[Any] = self._unpack(joined)
        else:
            numbers = map(getitem, self._number_memos, raw)
        return [*numbers, *map(getitem, self._other_memos, reply[count:])]


class _Kind:
    """Fields of one wire type, whatever it is, from `start` to `end` in the reply: each value through its field's
    memo."""

    def __init__(self, start: int, end: int, memos: Sequence[Memo], dtype: FieldType) -> None:
        self.start, self.end, self.dtype = start, end, dtype
        self._look_ups = [memo.__getitem__ for memo in memos]

    def decode(self, columns: Sequence[Raw]) -> Decoded:
        """A column of values for each column of raw bytes."""
        found = [list(map(look_up, column)) for look_up, column in zip(self._look_ups, columns, strict=True)]
        return found, all(all(column) or None not in column for column in found)  # mostly not even a zero is there

    def decode_arrays(self, columns: Sequence[Raw]) -> Decoded:
        """The same with an array of numbers for each column, if that is what they are and none is null."""
        return self.decode(columns)


class _Numbers(_Kind):
    """Numbers everywhere at once, as `_matrix` finds them: a row of it for each column, or None."""

    def decode(self, columns: Sequence[Raw]) -> Decoded:
        found = self._matrix(columns)
        return super().decode(columns) if found is None else (found.tolist(), True)

    def decode_arrays(self, columns: Sequence[Raw]) -> Decoded:
        found = self._matrix(columns)
        return super().decode(columns) if found is None else (list(found), True)

    def _matrix(self, columns: Sequence[Raw]) -> np.ndarray | None:
        raise NotImplementedError


class _FixedWidth(_Numbers):
    """[tag][number] everywhere at once. A null or a wrong value shows by its length or its tag, and raises _GapError.

    These kinds come first: nothing has been decoded then that would be counted as wrong twice.
    """

    def __init__(self, start: int, end: int, memos: Sequence[Memo], dtype: FieldType) -> None:
        super().__init__(start, end, memos, dtype)
        _, self._size, self._tag = _BULK[dtype]  # type: ignore[index]
        self._record = np.dtype([("tag", "u1"), ("number", f"<f{self._size - 1}")])

    def _matrix(self, columns: Sequence[Raw]) -> np.ndarray:
        rows = len(columns[0])
        try:
            joined = b"".join(chain.from_iterable(columns))  # type: ignore[arg-type]
        except TypeError:
            raise _GapError from None
        count = rows * len(columns)
        if len(joined) != self._size * count or joined[:: self._size] != self._tag * count:
            raise _GapError
        found = np.frombuffer(joined, dtype=self._record)["number"].reshape(-1, rows)
        return as_doubles(found)


class _WholeNumbers(_Numbers):
    """[tag][varint] everywhere at once."""

    def _matrix(self, columns: Sequence[Raw]) -> np.ndarray | None:
        rows = len(columns[0])
        if rows * len(columns) < _ENOUGH_FOR_NUMPY:
            return None
        raw = list(chain.from_iterable(columns))
        try:
            found = varints(raw, tag(self.dtype, 0)[0])  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        return None if found is None else found.reshape(-1, rows)


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


_KINDS: dict[FieldType, type[_Kind]] = {
    **dict.fromkeys(_BULK, _FixedWidth),
    **dict.fromkeys(_WHOLE, _WholeNumbers),
    None: _Times,
}
