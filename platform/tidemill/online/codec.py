"""Feast's `Value` and protobuf's `Timestamp` as bytes, written by hand: byte for byte what Feast writes, without Feast.

A `Value` is one field (number = the `ValueType`'s own number) or nothing at all, which is null. Wire types: 0 varint,
1 eight bytes, 2 length-delimited, 5 four bytes. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tidemill.clock import to_micros
from tidemill.definitions.types import ValueType
from tidemill.errors import InputError

NULL = b""
_NULL_FIELD = 19
_NO_TIME = -(2**63)
"""Feast writes a missing timestamp inside a list as this number of seconds."""

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")
_SETS = {ValueType[name] for name in ValueType.__members__ if name.endswith("_SET")}
_WIRE = {
    ValueType.BYTES: _BYTES,
    ValueType.STRING: _BYTES,
    ValueType.INT32: _VARINT,
    ValueType.INT64: _VARINT,
    ValueType.DOUBLE: _EIGHT,
    ValueType.FLOAT: _FOUR,
    ValueType.BOOL: _VARINT,
    ValueType.UNIX_TIMESTAMP: _VARINT,
}


class WrongValueError(ValueError):
    """Bytes in Redis that are not a value of the declared type. A read answers null for them and counts them."""


def tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def varint(number: int) -> bytes:
    """An unsigned varint; a negative number is written as its 64-bit two's complement."""
    number &= 0xFFFFFFFFFFFFFFFF
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(raw: bytes, position: int) -> tuple[int, int]:
    """The unsigned number at `position`, and the position after it."""
    number = shift = 0
    while True:
        if position >= len(raw) or shift > 63:
            raise WrongValueError("a number is cut off")
        byte = raw[position]
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return number, position
        shift += 7


def signed(number: int, bits: int = 64) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def encode_timestamp(micros: int) -> bytes:
    """A Timestamp message of an instant in microseconds since 1970 UTC. Zero parts are left out, as protobuf does."""
    seconds, rest = divmod(micros, 1_000_000)
    return (b"\x08" + varint(seconds) if seconds else b"") + (b"\x10" + varint(rest * 1000) if rest else b"")


def decode_timestamp(raw: bytes) -> int:
    """Microseconds since 1970 UTC of a Timestamp message; nanoseconds are cut off. Raises WrongValueError."""
    seconds = nanos = 0
    position = 0
    while position < len(raw):
        field = raw[position]
        number, position = read_varint(raw, position + 1)
        if field == 0x08:
            seconds = signed(number)
        elif field == 0x10:
            nanos = signed(number)
        else:
            raise WrongValueError("this is not a Timestamp")
    return seconds * 1_000_000 + nanos // 1000


def encode_value(dtype: ValueType, value: Any) -> bytes:
    """A value as Feast's bytes; None is empty bytes. Timestamps keep whole seconds, as Feast's format has no more.

    Raises InputError where the value is not of the type.
    """
    if value is None:
        return NULL
    try:
        return _encode(dtype, value)
    except (TypeError, ValueError, AttributeError, struct.error, ArithmeticError) as error:
        shown = repr(value)[:80]
        raise InputError(f"{shown} ({type(value).__name__}) is not a value of type {dtype.name}: {error}.") from error


def decode_value(dtype: ValueType, raw: bytes) -> Any:
    """A value from Feast's bytes; null is None. Raises WrongValueError where they hold something else."""
    if not raw:
        return None
    number, position = read_varint(raw, 0)
    field, wire = number >> 3, number & 7
    if field == _NULL_FIELD:
        return None
    if field != dtype:
        raise WrongValueError(f"found field {field} where {dtype.name} (field {dtype.value}) was expected")
    payload, end = _payload(raw, position, wire)
    if end != len(raw):
        raise WrongValueError("there is more than one value")
    try:
        return _decode(dtype, payload)
    except (TypeError, ValueError, struct.error, OverflowError, ArithmeticError) as error:
        raise WrongValueError(str(error)) from error


def _encode(dtype: ValueType, value: Any) -> bytes:
    if dtype in _WIRE:
        return tag(dtype, _WIRE[dtype]) + _scalar(dtype, value)
    if dtype.is_list:
        return _delimited(dtype, _encode_list(dtype.element, value))
    if dtype is ValueType.JSON:
        return _delimited(dtype, (value if isinstance(value, str) else json.dumps(value)).encode())
    if dtype is ValueType.DECIMAL:
        return _delimited(dtype, str(_decimal(value)).encode())
    if dtype in (ValueType.MAP, ValueType.STRUCT):
        return _delimited(dtype, _encode_map(_from_json(value)))
    if dtype is ValueType.MAP_LIST:
        items = map(_from_json, _from_json(value))
        return _delimited(dtype, b"".join(_delimited(1, _encode_map(item)) for item in items))
    raise TypeError("the type has no encoding")


def _delimited(field: int, payload: bytes) -> bytes:
    return tag(field, _BYTES) + varint(len(payload)) + payload


def _scalar(dtype: ValueType, value: Any) -> bytes:
    return _SCALARS[dtype](value)


def _whole(value: Any, *, bits: int) -> bytes:
    number = value.__index__() if not isinstance(value, float) else _from_float(value)
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise OverflowError(f"it does not fit {bits} bits")
    return varint(number)


def _from_float(value: float) -> int:
    if not value.is_integer():
        raise ValueError("it is not a whole number")
    return int(value)


def _text(value: Any) -> bytes:
    payload = value.encode()
    return varint(len(payload)) + payload


def _binary(value: Any) -> bytes:
    payload = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value.encode()
    return varint(len(payload)) + payload


def seconds_of(value: Any) -> int:
    """Whole seconds since 1970 UTC of a datetime (a naive one is read as UTC) or of a number of seconds."""
    return to_micros(value) // 1_000_000 if isinstance(value, datetime) else int(value)


_SCALARS: dict[ValueType, Callable[[Any], bytes]] = {
    ValueType.BYTES: _binary,
    ValueType.STRING: _text,
    ValueType.INT32: lambda value: _whole(value, bits=32),
    ValueType.INT64: lambda value: _whole(value, bits=64),
    ValueType.DOUBLE: _DOUBLE.pack,
    ValueType.FLOAT: _FLOAT.pack,
    ValueType.BOOL: lambda value: b"\x01" if value else b"\x00",
    ValueType.UNIX_TIMESTAMP: lambda value: varint(seconds_of(value)),
}


def _encode_list(element: ValueType, values: Iterable[Any]) -> bytes:
    """The inside of a list message: numbers packed into one field, texts as one field each. Empty is empty."""
    items = list(values)
    if element is not ValueType.UNIX_TIMESTAMP and any(item is None for item in items):
        raise TypeError("a list cannot hold a null")
    if _WIRE[element] == _BYTES:
        return b"".join(b"\x0a" + _scalar(element, item) for item in items)
    if not items:
        return b""
    if element is ValueType.UNIX_TIMESTAMP:
        items = [_NO_TIME if item is None else item for item in items]
    payload = b"".join(_scalar(element, item) for item in items)
    return b"\x0a" + varint(len(payload)) + payload


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool | list | tuple):
        raise TypeError("it is no number")
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _from_json(value: Any) -> Any:
    """A map may be given as JSON, too: columns of sources hold it, and Feast's remote client sends it."""
    return json.loads(value) if isinstance(value, str) else value


def _encode_map(value: Any) -> bytes:
    """map<string, Value>: an entry message for each key."""
    return b"".join(
        _delimited(1, _delimited(1, str(key).encode()) + _delimited(2, _encode_any(item)))
        for key, item in value.items()
    )


def _encode_any(value: Any) -> bytes:
    """A value inside a map, of the type Feast would take for it."""
    if value is None:
        return NULL
    if isinstance(value, dict):
        return _encode(ValueType.MAP, value)
    if isinstance(value, list | tuple | set | frozenset):
        if value and all(isinstance(item, dict) for item in value):
            return _encode(ValueType.MAP_LIST, value)
        kinds = {_natural_type(item) for item in value if item is not None} or {ValueType.STRING}
        if len(kinds) > 1:
            raise TypeError("a list inside a map mixes types")
        shape = "SET" if isinstance(value, set | frozenset) else "LIST"
        return _encode(ValueType[f"{kinds.pop().name}_{shape}"], value)
    return _encode(_natural_type(value), value)


def _natural_type(value: Any) -> ValueType:
    natural = {
        bool: ValueType.BOOL,
        int: ValueType.INT64,
        float: ValueType.DOUBLE,
        str: ValueType.STRING,
        bytes: ValueType.BYTES,
        datetime: ValueType.UNIX_TIMESTAMP,
    }
    try:
        return natural[type(value)]
    except KeyError:
        raise TypeError(f"a map cannot hold a {type(value).__name__}") from None


def _payload(raw: bytes, position: int, wire: int) -> tuple[Any, int]:
    if wire == _VARINT:
        return read_varint(raw, position)
    size = {_EIGHT: 8, _FOUR: 4}.get(wire)
    if size is None:
        if wire != _BYTES:
            raise WrongValueError(f"wire type {wire} is not known")
        size, position = read_varint(raw, position)
    if position + size > len(raw):
        raise WrongValueError("the value is cut off")
    return raw[position : position + size], position + size


def _decode(dtype: ValueType, payload: Any) -> Any:
    if dtype in _WIRE:
        return _decode_scalar(dtype, payload)
    if dtype.is_list:
        found = _decode_list(dtype.element, payload)
        return set(found) if dtype in _SETS else found
    if dtype in (ValueType.MAP, ValueType.STRUCT):
        return _decode_map(payload)
    if dtype is ValueType.MAP_LIST:
        return [_decode_map(item) for item in _fields(payload, 1)]
    text = payload.decode()
    return Decimal(text) if dtype is ValueType.DECIMAL else text


def _decode_scalar(dtype: ValueType, payload: Any) -> Any:
    """A scalar from a number (varint) or bytes; of the wrong wire type it raises TypeError."""
    if (_WIRE[dtype] == _VARINT) is not isinstance(payload, int):
        raise TypeError("the wire type is another")
    return _DECODERS[dtype](payload)


def instant_of_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def instant(seconds: int) -> datetime | None:
    return None if seconds == _NO_TIME else _EPOCH + timedelta(seconds=seconds)


_DECODERS: dict[ValueType, Callable[[Any], Any]] = {
    ValueType.BYTES: bytes,
    ValueType.STRING: lambda payload: payload.decode(),
    ValueType.INT32: lambda number: signed(number, 32),
    ValueType.INT64: signed,
    ValueType.DOUBLE: lambda payload: _DOUBLE.unpack(payload)[0],
    ValueType.FLOAT: lambda payload: _FLOAT.unpack(payload)[0],
    ValueType.BOOL: bool,
    ValueType.UNIX_TIMESTAMP: lambda number: instant(signed(number)),
}


def _decode_list(element: ValueType, payload: Any) -> list[Any]:
    if not isinstance(payload, bytes):
        raise TypeError("the wire type is another")
    found: list[Any] = []
    for item, wire in _all_fields(payload, 1):
        if _WIRE[element] == _BYTES or wire != _BYTES:
            found.append(_decode_scalar(element, item))
        else:
            found.extend(_unpack_numbers(element, item))
    return found


def _unpack_numbers(element: ValueType, payload: bytes) -> list[Any]:
    if element is ValueType.DOUBLE:
        return list(struct.unpack(f"<{len(payload) // 8}d", payload))
    if element is ValueType.FLOAT:
        return list(struct.unpack(f"<{len(payload) // 4}f", payload))
    found, position = [], 0
    while position < len(payload):
        number, position = read_varint(payload, position)
        found.append(_DECODERS[element](number))
    return found


def _all_fields(payload: bytes, field: int) -> Iterable[tuple[Any, int]]:
    position = 0
    while position < len(payload):
        number, position = read_varint(payload, position)
        item, position = _payload(payload, position, number & 7)
        if number >> 3 != field:
            raise WrongValueError(f"a list has no field {number >> 3}")
        yield item, number & 7


def _fields(payload: bytes, field: int) -> list[Any]:
    return [item for item, _ in _all_fields(payload, field)]


def _decode_map(payload: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in _fields(payload, 1):
        key, value, position = "", NULL, 0
        while position < len(entry):
            number, position = read_varint(entry, position)
            item, position = _payload(entry, position, number & 7)
            if number >> 3 == 1:
                key = item.decode()
            else:
                value = item
        found[key] = decode_any(value)
    return found


def decode_any(raw: bytes) -> Any:
    """A value of whatever type its own field number says."""
    if not raw:
        return None
    field = read_varint(raw, 0)[0] >> 3
    if field == _NULL_FIELD:
        return None
    try:
        return decode_value(ValueType(field), raw)
    except ValueError as error:
        raise WrongValueError(str(error)) from error
