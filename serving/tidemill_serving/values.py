"""Values on the wire: what JSON each declared type is written as, and how a request's JSON is read.

Bytes are base64, instants are RFC 3339 in UTC, a float that JSON cannot say is "NaN", "Infinity" or "-Infinity";
everything else is itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from tidemill.clock import as_utc
from tidemill.definitions.types import ValueType

_FLOATS = (ValueType.DOUBLE, ValueType.FLOAT)
_INT_RANGES = {ValueType.INT32: (-(2**31), 2**31 - 1), ValueType.INT64: (-(2**63), 2**63 - 1)}
_EXACT_FLOAT = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EXPECTED = {
    ValueType.BYTES: "a base64 string",
    ValueType.STRING: "a string",
    ValueType.INT32: "a whole number of 32 bits",
    ValueType.INT64: "a whole number of 64 bits",
    ValueType.DOUBLE: "a number",
    ValueType.FLOAT: "a number",
    ValueType.BOOL: "true or false",
    ValueType.UNIX_TIMESTAMP: "an instant such as 2013-10-01T12:00:00Z",
    ValueType.DECIMAL: "a decimal number, best as a string",
    ValueType.JSON: "JSON, or a string that holds it",
    ValueType.MAP: "an object",
    ValueType.STRUCT: "an object",
    ValueType.MAP_LIST: "an array of objects",
}


class WrongTypeError(ValueError):
    """A JSON value is not of the declared type."""


def expected(dtype: ValueType) -> str:
    """What a value of the type looks like in JSON, for a message to the caller."""
    if dtype.is_list:
        return f"an array of values, each {EXPECTED[dtype.element]} or null"
    return EXPECTED[dtype]


def reader_of(dtype: ValueType) -> Callable[[Any], Any]:
    """A function from a JSON value (never null) to the plain value. It raises WrongTypeError."""
    if dtype.is_list:
        element = reader_of(dtype.element)
        return lambda value: _read_list(element, value)
    return _READERS[dtype]


def _read_list(element: Callable[[Any], Any], value: Any) -> list[Any]:
    if type(value) is not list:
        raise WrongTypeError
    return [None if item is None else element(item) for item in value]


def _read_string(value: Any) -> str:
    if type(value) is not str:
        raise WrongTypeError
    return value


def _read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise WrongTypeError
    return value


def _integer_reader(dtype: ValueType) -> Callable[[Any], int]:
    low, high = _INT_RANGES[dtype]

    def read(value: Any) -> int:
        if type(value) is float and value.is_integer() and abs(value) <= _EXACT_FLOAT:
            value = int(value)  # JSON has one kind of number, and some write 1.0 for 1
        if type(value) is not int or not low <= value <= high:
            raise WrongTypeError
        return value

    return read


def _read_float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise WrongTypeError
    return float(value)


def _read_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise WrongTypeError
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise WrongTypeError from None


def _read_instant(value: Any) -> datetime:
    """RFC 3339 text; without an offset it is UTC. Feast's own clients send seconds since 1970 as a number."""
    try:
        if type(value) is str:
            return as_utc(datetime.fromisoformat(value))
        if type(value) in (int, float) and math.isfinite(value):
            return _EPOCH + timedelta(seconds=value)
    except (ValueError, OverflowError):
        pass
    raise WrongTypeError


def _read_json(value: Any) -> str:
    """As text, which is what is kept; what is no text is what such a text would say."""
    if type(value) is not str:
        return json.dumps(value)
    _parsed(value)
    return value


def _read_decimal(value: Any) -> str:
    if type(value) not in (str, int, float):
        raise WrongTypeError
    try:
        return str(Decimal(str(value)))
    except ArithmeticError:
        raise WrongTypeError from None


def _read_map(value: Any) -> dict[str, Any]:
    """An object; Feast's remote client sends it as a string of JSON."""
    found = _parsed(value) if type(value) is str else value
    if type(found) is not dict:
        raise WrongTypeError
    return found


def _read_maps(value: Any) -> list[dict[str, Any]]:
    found = _parsed(value) if type(value) is str else value
    if type(found) is not list:
        raise WrongTypeError
    return [_read_map(item) for item in found]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise WrongTypeError from None


_READERS: dict[ValueType, Callable[[Any], Any]] = {
    ValueType.STRING: _read_string,
    ValueType.BOOL: _read_bool,
    ValueType.INT32: _integer_reader(ValueType.INT32),
    ValueType.INT64: _integer_reader(ValueType.INT64),
    ValueType.DOUBLE: _read_float,
    ValueType.FLOAT: _read_float,
    ValueType.BYTES: _read_bytes,
    ValueType.UNIX_TIMESTAMP: _read_instant,
    ValueType.JSON: _read_json,
    ValueType.DECIMAL: _read_decimal,
    ValueType.MAP: _read_map,
    ValueType.STRUCT: _read_map,
    ValueType.MAP_LIST: _read_maps,
}

EXACT: dict[ValueType, frozenset[type]] = {
    ValueType.STRING: frozenset({str}),
    ValueType.BOOL: frozenset({bool}),
    ValueType.INT32: frozenset({int}),
    ValueType.INT64: frozenset({int}),
    ValueType.DOUBLE: frozenset({float}),
    ValueType.FLOAT: frozenset({float}),
}
"""Types whose values need no reading when every value of a column is of exactly that Python type."""

RANGES = _INT_RANGES


def writer_of(dtype: ValueType) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """A function that makes a column of values ready for orjson, or None where they are ready as they are."""
    if dtype in _FLOATS:
        return _write_floats
    if dtype.element in _FLOATS:
        return lambda column: [None if value is None else list(_write_floats(list(value))) for value in column]
    if dtype in _EXACT_JSON:
        return None
    return lambda column: [_plain(value) for value in column]


_EXACT_JSON = {ValueType.STRING, ValueType.BOOL, ValueType.INT32, ValueType.INT64}


def are_finite(columns: Iterable[Sequence[Any]]) -> bool:
    """Whether all values of these columns are finite numbers. May say no where a sum of them is too large."""
    arrays, lists = [], []
    for column in columns:
        (arrays if isinstance(column, np.ndarray) else lists).append(column)
    if arrays and not np.isfinite(np.concatenate(arrays)).all():
        return False
    try:
        return math.isfinite(sum(map(sum, lists)))
    except TypeError:  # a null among them
        return False


def _write_floats(column: Sequence[Any]) -> Sequence[Any]:
    """Most columns hold only finite numbers, and one sum tells."""
    if isinstance(column, np.ndarray):
        return _write_floats(column.tolist())
    try:
        if math.isfinite(sum(column)):
            return column
    except TypeError:  # a null among them
        pass
    return [_finite(value) for value in column]


def _finite(value: Any) -> Any:
    if value is None or math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _plain(value: Any) -> Any:
    """JSON for a value of any type; also given to orjson as its `default`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return as_utc(value).isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=repr)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


plain = _plain
