"""Values that users' functions return, in the type that is declared for them.

What becomes of a value never depends on those it came with: the rows of a training set are evaluated together, those of
a request by themselves, and both must be told the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.types import ValueType, from_seconds

_EXACT: dict[ValueType, frozenset[type]] = {
    ValueType.INT64: frozenset({int, type(None)}),
    ValueType.DOUBLE: frozenset({float, type(None)}),
    ValueType.STRING: frozenset({str, type(None)}),
    ValueType.BOOL: frozenset({bool, type(None)}),
    ValueType.BYTES: frozenset({bytes, type(None)}),
}
"""Types of Python whose values are what is declared as they are; whole numbers if they are not too wide."""
_WIDEST = 1 << 63
_MISSING = {"NAType", "NaTType"}
"""What pandas calls the types of its own nulls."""


def declared_values(dtype: ValueType, values: list[Any]) -> list[Any]:
    """The values in the declared type exactly, so that what is trained on and what is served cannot differ in the last
    bits. Raises TypeError, ValueError, OverflowError or a PolarsError where one would be another value in it."""
    if _is_exact(dtype, values) or dtype.polars() is None:
        return values
    plain = [_plain(value) for value in values]
    return _lists(dtype, plain) if dtype.is_list else _scalars(dtype, plain)


def _lists(dtype: ValueType, values: list[Any]) -> list[Any]:
    """All elements of all lists as one column."""
    lists = [None if value is None else _elements(value) for value in values]
    found = iter(declared_values(dtype.element, list(chain.from_iterable(filter(None, lists)))))
    return [None if one is None else list(islice(found, len(one))) for one in lists]


def _elements(value: Any) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"{value!r} is no list")
    return list(value)


def _scalars(dtype: ValueType, values: list[Any]) -> list[Any]:
    """Values of one kind are a column; of several kinds those of each, since a column has but one."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return _column(dtype, values)
    found: list[Any] = [None] * len(values)
    for kind in kinds:
        places = [place for place, value in enumerate(values) if type(value) is kind]
        for place, value in zip(places, _column(dtype, [values[place] for place in places]), strict=True):
            found[place] = value
    return found


def _column(dtype: ValueType, values: list[Any]) -> list[Any]:
    wanted, column = dtype.polars(), pl.Series(values, strict=True)
    if wanted is None or (column.dtype.is_nested() and len(values)):
        raise TypeError(f"they are {column.dtype}")
    if wanted.is_integer() and column.dtype.is_float():
        column = column.fill_nan(None)  # pandas writes a missing integer so
        _refuse_fractions(column)
    if isinstance(wanted, pl.Datetime) and column.dtype.is_integer():
        return from_seconds(column, wanted).to_list()
    return column.cast(wanted, strict=True).to_list()


def _is_exact(dtype: ValueType, values: list[Any]) -> bool:
    exact = _EXACT.get(dtype)
    if exact is None or not exact.issuperset(map(type, values)):
        return False
    return dtype is not ValueType.INT64 or all(value is None or -_WIDEST <= value < _WIDEST for value in values)


def _refuse_fractions(column: pl.Series) -> None:
    broken = column.drop_nulls().filter(column.drop_nulls() % 1 != 0)
    if len(broken):
        raise ValueError(f"{broken[0]} is not a whole number")


def _plain(value: Any) -> Any:
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, np.generic):
        return value.item()
    return value
