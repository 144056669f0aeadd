"""One value at a time: raw bytes to the plain value, most of them looked up, since values repeat.

Bytes that are no value of the declared type become null and are counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError, decode_timestamp, decode_value, tag

log = logging.getLogger(__name__)

FieldType = ValueType | None
"""A feature's type; None for an event time."""

_MEMO_SIZE = 4_096
_WHOLE = (ValueType.INT64, ValueType.INT32)
_NOTHING = {b"-1": None}
"""What Redis answers for a field that is not there, instead of a length."""


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


class Memo(dict[bytes | None, Any]):
    """Raw to value by look-up; what is not known yet is decoded, and kept if it may be shared between answers."""

    def __init__(self, name: str, decode: Callable[[bytes], Any], wrong: WrongValues, *, keep: bool) -> None:
        super().__init__({None: None})
        self._name, self._decode, self._wrong, self._keep = name, decode, wrong, keep

    def __missing__(self, raw: bytes) -> Any:
        try:
            value = self._decode(raw)
        except WrongValueError as error:
            self._wrong.add(self._name, error)
            return None
        if self._keep:
            if len(self) >= _MEMO_SIZE:
                self.clear()
                self[None] = None
            self[raw] = value
        return value


class BulkMemo(dict[bytes, Any]):
    """The same for bulk strings as they come from Redis, without their `$` and last line end: length, line end, value.

    Raises WrongValueError where the length is not that of the value, or the value not of the type. What is in the memo
    has been found right before.
    """

    def __init__(self, dtype: FieldType) -> None:
        super().__init__(_NOTHING)
        self._decode, self._keep = _decoding(dtype)

    def __missing__(self, bulk: bytes) -> Any:
        size, end, raw = bulk.partition(b"\r\n")
        if not end or size != b"%d" % len(raw):
            raise WrongValueError("this is not one bulk string")
        value = self._decode(raw)
        if self._keep:
            if len(self) >= _MEMO_SIZE:
                self.clear()
                self.update(_NOTHING)
            self[bulk] = value
        return value


def memo_of(name: str, dtype: FieldType, wrong: WrongValues) -> Memo:
    """The memo of one field; `name` is for whoever reads that its values are wrong."""
    decode, keep = _decoding(dtype)
    return Memo(name, decode, wrong, keep=keep)


def _decoding(dtype: FieldType) -> tuple[Callable[[bytes], Any], bool]:
    """How values of a type are decoded, and whether they may be shared between answers: a list must not."""
    if dtype is None:
        return _usual_time, True
    if dtype is ValueType.STRING:
        return _usual_text, True
    if dtype in _WHOLE:
        return _usual_whole(dtype), True
    return partial(decode_value, dtype), dtype in (ValueType.BOOL, ValueType.UNIX_TIMESTAMP)


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
