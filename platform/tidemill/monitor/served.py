"""What was served, read back from the prediction log in the types that were declared."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import orjson
import polars as pl

from tidemill.clock import as_utc
from tidemill.definitions.series import declared_series
from tidemill.definitions.types import ValueType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_JSON = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class ServedColumn:
    """One name of many logged JSON objects, rows in the log's order.

    `values` has the declared type, null where the object has null, lacks the name or holds another type; `absent` and
    `mistyped` (bool arrays) tell these apart. `raw` is what JSON said.
    """

    values: pl.Series
    absent: np.ndarray
    mistyped: np.ndarray
    raw: list[Any]


class Declared(Protocol):
    """Anything with a name and a declared type: a feature, a request field, an input of a model."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> ValueType: ...


def documents(texts: Iterable[str]) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in texts]


def served_column(found: Sequence[dict[str, Any]], field: Declared, *, name: str | None = None) -> ServedColumn:
    """One declared field of many objects; `name` is what they call it, if not its own name."""
    key = name or field.name
    raw = [document.get(key, _ABSENT) for document in found]
    absent = np.fromiter((value is _ABSENT for value in raw), dtype=np.bool_, count=len(raw))
    if absent.any():
        raw = [None if value is _ABSENT else value for value in raw]
    values, mistyped = _typed(raw, field.dtype)
    return ServedColumn(
        values=comparable(values, field.dtype).alias(field.name), absent=absent, mistyped=mistyped, raw=raw
    )


def served_frame(found: Sequence[dict[str, Any]], fields: Iterable[Declared]) -> pl.DataFrame:
    """Several declared fields as a typed frame."""
    return pl.DataFrame([served_column(found, field).values for field in fields])


def comparable(values: pl.Series, dtype: ValueType) -> pl.Series:
    """A column of sets with the values of each in order and once; every other as it is."""
    return values.list.unique().list.sort() if dtype.is_set and isinstance(values.dtype, pl.List) else values


def _typed(raw: list[Any], dtype: ValueType) -> tuple[pl.Series, np.ndarray]:
    right = np.zeros(len(raw), dtype=np.bool_)
    target = dtype.polars()
    if target is None:
        return declared_series("", raw, dtype), right
    if _PLAIN.get(dtype, frozenset()).issuperset(map(type, raw)):
        try:
            return pl.Series(raw, dtype=target, strict=True), right
        except (pl.exceptions.PolarsError, TypeError, OverflowError):
            pass  # one value too large for the type: look at each
    return _one_by_one(raw, dtype, target)


def _one_by_one(raw: list[Any], dtype: ValueType, target: pl.DataType) -> tuple[pl.Series, np.ndarray]:
    read = _reader(dtype)
    values: list[Any] = []
    mistyped = np.zeros(len(raw), dtype=np.bool_)
    for place, value in enumerate(raw):
        try:
            values.append(None if value is None else read(value))
        except (TypeError, ValueError, OverflowError):
            values.append(None)
            mistyped[place] = True
    return pl.Series(values, dtype=target, strict=True), mistyped


def _reader(dtype: ValueType) -> Callable[[Any], Any]:
    if dtype.is_list:
        read = _READERS[dtype.element]
        return lambda values: [None if value is None else read(value) for value in _exactly(list, values)]
    return _READERS[dtype]


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _integer(bits: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not -(2 ** (bits - 1)) <= _exactly(int, value) < 2 ** (bits - 1):
            raise ValueError(f"{value} does not fit {bits} bits")
        return value

    return read


def _number(value: Any) -> float:
    if isinstance(value, str):
        return _NOT_JSON[value] if value in _NOT_JSON else _exactly(float, value)
    return float(_exactly(int, value)) if not isinstance(value, float) else value


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        return as_utc(datetime.fromisoformat(value))
    return _EPOCH + timedelta(microseconds=_exactly(int, value))


_PLAIN: dict[ValueType, frozenset[type]] = {
    ValueType.INT32: frozenset({int, type(None)}),
    ValueType.INT64: frozenset({int, type(None)}),
    ValueType.DOUBLE: frozenset({float, int, type(None)}),
    ValueType.FLOAT: frozenset({float, int, type(None)}),
    ValueType.STRING: frozenset({str, type(None)}),
    ValueType.JSON: frozenset({str, type(None)}),
    ValueType.BOOL: frozenset({bool, type(None)}),
}
_READERS: dict[ValueType, Callable[[Any], Any]] = {
    ValueType.INT32: _integer(32),
    ValueType.INT64: _integer(64),
    ValueType.DOUBLE: _number,
    ValueType.FLOAT: _number,
    ValueType.STRING: lambda value: _exactly(str, value),
    ValueType.JSON: lambda value: _exactly(str, value),
    ValueType.BOOL: lambda value: _exactly(bool, value),
    ValueType.BYTES: lambda value: base64.b64decode(_exactly(str, value), validate=True),
    ValueType.UNIX_TIMESTAMP: _moment,
}
