"""Raw replies into columns of values, fast where all is as expected and exact everywhere else.

The fields of one HMGET are decoded by kind, all columns and rows of a kind together: fixed-width numbers by one
`struct` call, whole numbers and instants by a few array operations, texts through a memo of bounded size, since they
repeat. What does not look as expected is decoded value by value, and bytes that are no value of the declared type
become null and are counted.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError, decode_timestamp, decode_value, tag

log = logging.getLogger(__name__)

Raw = Sequence[bytes | None]
Replies = Sequence[Sequence[bytes | None]]
"""One reply for each row: its fields in the order of the command."""

FieldType = ValueType | str | None
"""A feature's type; None for an event time; PACKED for a packed value."""
PACKED = "packed"

_MEMO_SIZE = 4_096
_ENOUGH_FOR_NUMPY = 128
_BULK = {ValueType.DOUBLE: ("xd", 9, b"\x29"), ValueType.FLOAT: ("xf", 5, b"\x35")}
_WHOLE = {ValueType.INT64, ValueType.INT32}


class WrongValues:
    """Counts values in Redis that were not what the catalog says, by `view:feature`."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def add(self, name: str, error: Exception) -> None:
        if not self.count[name]:
            log.warning(
                "A stored value of %s is not what the catalog says (%s); it reads as null.",
                name,
                error,
                extra={"action": "wrong_value", "feature": name},
            )
        self.count[name] += 1


class FieldDecoder:
    """Decodes the fields of one HMGET. `fields` gives each field's name (`view:feature`) and type, in the order of
    the command."""

    def __init__(self, fields: Sequence[tuple[str, FieldType]], wrong: WrongValues) -> None:
        self._width = len(fields)
        by_kind: dict[Any, list[int]] = {}
        for place, (_, dtype) in enumerate(fields):
            by_kind.setdefault(_kind(dtype), []).append(place)
        self._kinds = [
            _KINDS[kind]([(place, *fields[place]) for place in places], wrong) for kind, places in by_kind.items()
        ]

        order = [place for kind in self._kinds for place in kind.places]
        self._in_order = _taker([order.index(place) for place in range(self._width)])

    def decode(self, replies: Replies) -> list[list[Any]]:
        """One column for each field, with a value for each reply."""
        if len(replies) == 1:
            return [[value] for value in self.decode_row(replies[0])]
        columns: list[list[Any]] = [[]] * self._width
        if replies:
            found = list(zip(*replies, strict=True))
            for kind in self._kinds:
                decoded = kind.decode_columns([found[place] for place in kind.places])
                for place, column in zip(kind.places, decoded, strict=True):
                    columns[place] = column
        return columns

    def decode_row(self, reply: Raw) -> Sequence[Any]:
        """The values of one reply, in the order of the fields."""
        values: list[Any] = []
        for kind in self._kinds:
            values += kind.decode(kind.take(reply))
        return self._in_order(values)


class _Kind:
    """Fields of one wire type: of one row by `decode`, of several rows by `decode_columns`."""

    def __init__(self, fields: Sequence[tuple[int, str, FieldType]], wrong: WrongValues) -> None:
        self.places = [place for place, _, _ in fields]
        self._look_ups = [_memo(name, dtype, wrong).__getitem__ for _, name, dtype in fields]
        self.take: Callable[[Raw], Sequence[bytes | None]] = _taker(self.places)

    def decode(self, raw: Raw) -> Iterable[Any]:
        return [look_up(item) for look_up, item in zip(self._look_ups, raw, strict=True)]

    def decode_columns(self, columns: Sequence[Raw]) -> list[list[Any]]:
        return [list(map(look_up, column)) for look_up, column in zip(self._look_ups, columns, strict=True)]


class _AsTheyAre(_Kind):
    """Fields that somebody else decodes: packed values."""

    def decode(self, raw: Raw) -> Iterable[Any]:
        return raw

    def decode_columns(self, columns: Sequence[Raw]) -> list[list[Any]]:
        return [list(column) for column in columns]


class _FixedWidth(_Kind):
    """[tag][number] everywhere at once. A null or a wrong value shows by its length or its tag."""

    def __init__(self, fields: Sequence[tuple[int, str, FieldType]], wrong: WrongValues) -> None:
        super().__init__(fields, wrong)
        self._layout, self._size, head = _BULK[fields[0][2]]  # type: ignore[index]
        self._tag, self._count = head, len(fields)
        self._row_tags, self._row_size = head * len(fields), self._size * len(fields)
        self._unpack_row = _structure(self._layout, len(fields)).unpack

    def decode(self, raw: Raw) -> Iterable[Any]:
        try:
            joined = b"".join(raw)  # type: ignore[arg-type]
        except TypeError:  # a field that is not there
            return super().decode(raw)
        if len(joined) == self._row_size and joined[:: self._size] == self._row_tags:
            return self._unpack_row(joined)
        return super().decode(raw)

    def decode_columns(self, columns: Sequence[Raw]) -> list[list[Any]]:
        rows = len(columns[0])
        try:
            joined = b"".join(chain.from_iterable(columns))  # type: ignore[arg-type]
        except TypeError:
            return super().decode_columns(columns)
        count = rows * len(columns)
        if len(joined) != self._size * count or joined[:: self._size] != self._tag * count:
            return super().decode_columns(columns)
        return _split(_structure(self._layout, count).unpack(joined), rows)


class _WholeNumbers(_Kind):
    """[tag][varint] everywhere at once, by shifting all bytes to their places and adding up."""

    def __init__(self, fields: Sequence[tuple[int, str, FieldType]], wrong: WrongValues) -> None:
        super().__init__(fields, wrong)
        self._tag = tag(fields[0][2], 0)[0]  # type: ignore[arg-type]

    def decode_columns(self, columns: Sequence[Raw]) -> list[list[Any]]:
        rows = len(columns[0])
        if rows * len(columns) < _ENOUGH_FOR_NUMPY:
            return super().decode_columns(columns)
        raw = list(chain.from_iterable(columns))
        try:
            found = _varints(b"".join(raw), [*map(len, raw)], self._tag)  # type: ignore[arg-type]
        except TypeError:
            found = None
        return super().decode_columns(columns) if found is None else _split(found, rows)


class _Times(_Kind):
    """Timestamp messages into microseconds; None where there is none or where it is no Timestamp."""

    def decode_columns(self, columns: Sequence[Raw]) -> list[list[Any]]:
        rows = len(columns[0])
        raw = list(chain.from_iterable(columns))
        if len(raw) < _ENOUGH_FOR_NUMPY or None in raw:
            return super().decode_columns(columns)
        lengths = set(map(len, raw))  # type: ignore[arg-type]
        found = _instants(raw, lengths.pop()) if len(lengths) == 1 else _instants_by_length(raw, lengths)
        return super().decode_columns(columns) if found is None else _split(found, rows)


def _split(values: Sequence[Any], rows: int) -> list[list[Any]]:
    return [list(values[start : start + rows]) for start in range(0, len(values), rows)]


def _instants_by_length(raw: Raw, lengths: Iterable[int]) -> list[Any] | None:
    """Instants with microseconds take one of a few lengths; those of equal length are decoded together."""
    out: list[Any] = [None] * len(raw)
    for length in lengths:
        places = [place for place, item in enumerate(raw) if len(item) == length]  # type: ignore[arg-type]
        found = _instants([raw[place] for place in places], length)
        if found is None:
            return None
        for place, value in zip(places, found, strict=True):
            out[place] = value
    return out


def _kind(dtype: FieldType) -> Any:
    if dtype in _BULK or dtype in _WHOLE:
        return dtype
    if dtype is None or dtype == PACKED:
        return dtype
    return "other"


_KINDS: dict[Any, type[_Kind]] = {
    **dict.fromkeys(_BULK, _FixedWidth),
    **dict.fromkeys(_WHOLE, _WholeNumbers),
    None: _Times,
    PACKED: _AsTheyAre,
    "other": _Kind,
}


def _taker(places: Sequence[int]) -> Callable[[Raw], Sequence[bytes | None]]:
    if len(places) == 1:
        place = places[0]
        return lambda reply: (reply[place],)
    if list(places) == list(range(places[0], places[-1] + 1)):
        return itemgetter(slice(places[0], places[-1] + 1))
    return itemgetter(*places)


@lru_cache(maxsize=512)
def _structure(layout: str, count: int) -> struct.Struct:
    return struct.Struct("<" + layout * count)


class _Memo(dict[bytes | None, Any]):
    """Raw to value; the missing are decoded once."""

    def __init__(self, name: str, decode: Callable[[bytes], Any], wrong: WrongValues, *, keep: bool) -> None:
        super().__init__()
        self._name, self._decode, self._wrong, self._keep = name, decode, wrong, keep

    def __missing__(self, raw: bytes | None) -> Any:
        if raw is None:
            return None
        try:
            value = self._decode(raw)
        except WrongValueError as error:
            self._wrong.add(self._name, error)
            return None
        if self._keep:
            if len(self) >= _MEMO_SIZE:
                self.clear()
            self[raw] = value
        return value


def _memo(name: str, dtype: FieldType, wrong: WrongValues) -> _Memo:
    if dtype is None:
        return _Memo(name, _usual_time, wrong, keep=True)
    if not isinstance(dtype, ValueType):
        return _Memo(name, bytes, wrong, keep=False)
    if dtype is ValueType.STRING:
        return _Memo(name, _usual_text, wrong, keep=True)
    if dtype in _WHOLE:
        return _Memo(name, _usual_whole(dtype), wrong, keep=True)
    keep = dtype in (ValueType.BOOL, ValueType.UNIX_TIMESTAMP)  # a list must not be shared between answers
    return _Memo(name, lambda raw: decode_value(dtype, raw), wrong, keep=keep)


def _usual_text(raw: bytes) -> str | None:
    """A text of up to 127 bytes; anything else takes the long way."""
    if len(raw) > 1 and raw[0] == 0x12 and raw[1] == len(raw) - 2 < 0x80:
        try:
            return raw[2:].decode()
        except UnicodeDecodeError:
            pass
    return decode_value(ValueType.STRING, raw)


def _usual_whole(dtype: ValueType) -> Callable[[bytes], int | None]:
    """A whole number from 0 to 2^21; anything else takes the long way."""
    head = tag(dtype, 0)[0]

    def decode(raw: bytes) -> int | None:
        if raw and raw[0] == head:
            size = len(raw)
            if size == 2 and raw[1] < 0x80:
                return raw[1]
            if size == 3 and raw[1] >= 0x80 > raw[2]:
                return raw[1] & 0x7F | raw[2] << 7
            if size == 4 and raw[1] & raw[2] & 0x80 and raw[3] < 0x80:
                return raw[1] & 0x7F | (raw[2] & 0x7F) << 7 | raw[3] << 14
        return decode_value(dtype, raw)

    return decode


def _usual_time(raw: bytes) -> int:
    """Seconds in five bytes: every instant between 1978 and 3058. Anything else takes the long way."""
    if len(raw) < 6 or raw[0] != 0x08:
        return decode_timestamp(raw)
    a, b, c, d, e = raw[1:6]
    if not a & b & c & d & 0x80 or e & 0x80:
        return decode_timestamp(raw)
    seconds = (a & 0x7F) | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28
    if len(raw) == 6:
        return seconds * 1_000_000
    return seconds * 1_000_000 + decode_timestamp(raw[6:])


def _varints(joined: bytes, lengths: list[int], head: int) -> list[int] | None:
    """All numbers of [tag][varint] after one another; None where anything looks otherwise (a null has length 0)."""
    sizes = np.array(lengths)
    if sizes.min() < 2 or sizes.max() > 11:
        return None
    data = np.frombuffer(joined, dtype=np.uint8)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    more = data >= 0x80
    if (data[starts] != head).any() or more[ends - 1].any() or np.count_nonzero(more) != len(data) - 2 * len(sizes):
        return None
    shift = np.arange(len(data)) - np.repeat(starts + 1, sizes)
    shift[starts] = 0
    digits = (data & 0x7F).astype(np.uint64) << (7 * shift).astype(np.uint64)
    digits[starts] = 0
    return np.add.reduceat(digits, starts).view(np.int64).tolist()


def _instants(raw: Raw, length: int) -> list[int] | None:
    """Timestamp messages of one length with seconds in five bytes, and nanoseconds in what is left."""
    if length < 6 or length > 12 or length == 7:
        return None
    table = np.frombuffer(b"".join(raw), dtype=np.uint8).reshape(-1, length)  # type: ignore[arg-type]
    seconds = _column_of_varints(table[:, :6], 0x08)
    if seconds is None:
        return None
    if length == 6:
        return (seconds * 1_000_000).tolist()
    nanos = _column_of_varints(table[:, 6:], 0x10)
    return None if nanos is None else (seconds * 1_000_000 + nanos // 1_000).tolist()


def _column_of_varints(table: np.ndarray, head: int) -> np.ndarray | None:
    digits = table[:, 1:]
    if (table[:, 0] != head).any() or (digits[:, :-1] < 0x80).any() or (digits[:, -1] >= 0x80).any():
        return None
    return (digits.astype(np.int64) & 0x7F) @ _SEVENS[: digits.shape[1]]


_SEVENS = np.array([1 << shift for shift in (0, 7, 14, 21, 28)], dtype=np.int64)
