"""Columns of raw replies into columns of values, fast where all is as expected and exact everywhere else.

Values of one column are decoded together: fixed-width numbers by one `struct` call for the whole column; whole numbers,
texts and instants through a memo of bounded size, since features repeat. What does not look as expected falls back to
decoding value by value, and bytes that are no value of the declared type become null and are counted.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError, decode_timestamp, decode_value, tag

log = logging.getLogger(__name__)

Raw = Sequence[bytes | None]
Decoder = Callable[[Raw], tuple[list[Any], bool]]
"""Values, and whether any of them is None."""

_MEMO_SIZE = 4_096
_ENOUGH_FOR_NUMPY = 16
_BULK = {ValueType.DOUBLE: ("xd", 9), ValueType.FLOAT: ("xf", 5)}
_MEMOISED = {ValueType.INT32, ValueType.INT64, ValueType.BOOL, ValueType.STRING, ValueType.UNIX_TIMESTAMP}


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


def decoder(name: str, dtype: ValueType, wrong: WrongValues) -> Decoder:
    """The decoder of one feature's column. `name` is `view:feature`."""
    if dtype in _BULK:
        return _bulk_decoder(name, dtype, wrong)
    if dtype in _MEMOISED:
        return _memo_decoder(name, dtype, wrong)
    return _plain_decoder(name, dtype, wrong)


def decode_one(name: str, dtype: ValueType, raw: bytes | None, wrong: WrongValues) -> Any:
    if not raw:
        return None
    try:
        return decode_value(dtype, raw)
    except WrongValueError as error:
        wrong.add(name, error)
        return None


def _plain_decoder(name: str, dtype: ValueType, wrong: WrongValues) -> Decoder:
    def decode(raw: Raw) -> tuple[list[Any], bool]:
        values = [decode_one(name, dtype, item, wrong) for item in raw]
        return values, None in values

    return decode


def _bulk_decoder(name: str, dtype: ValueType, wrong: WrongValues) -> Decoder:
    """[tag][number] of every row at once. A null or a wrong value shows by its length or its tag."""
    layout, size = _BULK[dtype]
    head = tag(dtype, 1 if size == 9 else 5)
    one = struct.Struct("<" + layout).unpack

    def decode(raw: Raw) -> tuple[list[Any], bool]:
        count = len(raw)
        if count == 1:
            item = raw[0]
            if item and len(item) == size and item[:1] == head:
                return list(one(item)), False
            return [decode_one(name, dtype, item, wrong)], True
        try:
            joined = b"".join(raw)  # type: ignore[arg-type]
        except TypeError:  # a null among them
            joined = b""
        if len(joined) == size * count and joined[::size] == head * count:
            return list(_structure(layout, count).unpack(joined)), False
        return [decode_one(name, dtype, item, wrong) for item in raw], True

    return decode


@lru_cache(maxsize=256)
def _structure(layout: str, count: int) -> struct.Struct:
    return struct.Struct("<" + layout * count)


class _Memo(dict[bytes | None, Any]):
    """Raw to value; the missing are decoded once."""

    def __init__(self, name: str, dtype: ValueType, wrong: WrongValues) -> None:
        super().__init__()
        self._name, self._dtype, self._wrong = name, dtype, wrong

    def __missing__(self, raw: bytes | None) -> Any:
        if not raw:
            return None
        try:
            value = decode_value(self._dtype, raw)
        except WrongValueError as error:
            self._wrong.add(self._name, error)
            return None
        if len(self) >= _MEMO_SIZE:
            self.clear()
        self[raw] = value
        return value


def _memo_decoder(name: str, dtype: ValueType, wrong: WrongValues) -> Decoder:
    look_up = _Memo(name, dtype, wrong).__getitem__

    def decode(raw: Raw) -> tuple[list[Any], bool]:
        values = list(map(look_up, raw))
        return values, None in values

    return decode


class EventTimes:
    """Columns of Timestamp messages into microseconds; None where there is none or where it is no Timestamp."""

    def __init__(self, view: str, wrong: WrongValues) -> None:
        self._memo = _TimeMemo(f"{view}:event time", wrong)

    def __call__(self, raw: Raw) -> list[int | None]:
        if len(raw) >= _ENOUGH_FOR_NUMPY and None not in raw:
            joined = b"".join(raw)  # type: ignore[arg-type]
            if len(joined) == 6 * len(raw):
                found = _whole_seconds(joined)
                if found is not None:
                    return found
        return list(map(self._memo.__getitem__, raw))


class _TimeMemo(dict[bytes | None, int | None]):
    def __init__(self, name: str, wrong: WrongValues) -> None:
        super().__init__()
        self._name, self._wrong = name, wrong

    def __missing__(self, raw: bytes | None) -> int | None:
        if raw is None:
            return None
        try:
            value = _usual_time(raw) if len(raw) >= 6 and raw[0] == 0x08 else decode_timestamp(raw)
        except WrongValueError as error:
            self._wrong.add(self._name, error)
            return None
        if len(self) >= _MEMO_SIZE:
            self.clear()
        self[raw] = value
        return value


def _usual_time(raw: bytes) -> int:
    """Seconds in five bytes: every instant between 1978 and 3058. Anything else takes the long way."""
    _, a, b, c, d, e = raw[:6]
    if not (a & b & c & d & 0x80) or e & 0x80:
        return decode_timestamp(raw)
    seconds = (a & 0x7F) | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28
    if len(raw) == 6:
        return seconds * 1_000_000
    return seconds * 1_000_000 + decode_timestamp(raw[6:])


def _whole_seconds(joined: bytes) -> list[int | None] | None:
    table = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 6)
    if (table[:, 0] != 0x08).any() or (table[:, 1:5] < 0x80).any() or (table[:, 5] >= 0x80).any():
        return None
    digits = table[:, 1:].astype(np.int64) & 0x7F
    return (digits @ _SEVENS).tolist()


_SEVENS = np.array([1_000_000 << shift for shift in (0, 7, 14, 21, 28)], dtype=np.int64)
