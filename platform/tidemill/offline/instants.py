"""Instants as int64, so that they compare exactly whatever unit, zone or type they arrived in.

A lookup works in one unit: microseconds, or nanoseconds as soon as any side has them. Nothing is truncated before it
is compared. What does not fit (the year 9999 in nanoseconds) stays at the end of the range, so order is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.clock import as_utc, to_micros
from tidemill.offline.arrow_numbers import as_mask, as_numbers

Unit = Literal["us", "ns"]
Instants = npt.NDArray[np.int64]

NEVER = int(np.iinfo(np.int64).min)
"""Before everything: a cut-off at which nothing had been seen, or a known time that is null."""
FOREVER = int(np.iinfo(np.int64).max)

_BEYOND_MICROS = re.compile(r"[.,]\d{6}(\d{1,3})")
"""The digits of a time that a datetime of Python does not hold."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def finer(units: Iterable[Unit]) -> Unit:
    """The unit in which sides of these units compare without loss."""
    return "ns" if "ns" in tuple(units) else "us"


def unit_of(dtype: pa.DataType) -> Unit:
    """The unit in which a column of this type is compared: nanoseconds for nanoseconds, and for text, which may."""
    return "ns" if is_text(dtype) or (pa.types.is_timestamp(dtype) and dtype.unit == "ns") else "us"


def is_instant(dtype: pa.DataType) -> bool:
    """True for types that name an instant by themselves: timestamps and dates."""
    return pa.types.is_timestamp(dtype) or pa.types.is_date(dtype)


def is_text(dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        return is_text(dtype.value_type)
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)


def to_instants(column: pa.Array | pa.ChunkedArray, unit: Unit, *, null: int) -> Instants:
    """A column of timestamps, dates or ISO 8601 text as int64 since 1970-01-01 UTC; nulls become `null`.

    Naive values are read as UTC. Raises ValueError for a type or text that names no instant.
    """
    if isinstance(column, pa.ChunkedArray):
        # One chunk is taken as it is: `combine_chunks` would copy it.
        column = (
            column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
        )
    if pa.types.is_null(column.type):
        return np.full(len(column), null, np.int64)
    if is_text(column.type):
        return _from_text(column, unit, null=null)
    if not is_instant(column.type):
        raise ValueError(f"a column of type {column.type} holds no instants")
    source_unit, numbers = _as_numbers(column)
    missing = None
    if numbers.null_count:
        missing = as_mask(numbers.is_null())
        numbers = pc.fill_null(numbers, 0)
    values = rescale(as_numbers(numbers).astype(np.int64, copy=False), source_unit, unit)
    if missing is not None:
        values = np.where(missing, null, values)
    return values


def rescale(values: Instants, source: str, target: Unit) -> Instants:
    """The same instants in another unit; saturates at the ends and keeps NEVER and FOREVER as they are."""
    factor, divisor = _PER_SECOND[target], _PER_SECOND[source]
    if factor == divisor:
        return values
    if factor < divisor:
        return np.where(_is_end(values), values, values // (divisor // factor))
    step = factor // divisor
    limit = FOREVER // step
    return np.where(_is_end(values), values, np.clip(values, -limit, limit) * step)


def to_unit(at: datetime, unit: Unit) -> int:
    return to_micros(at) * (1000 if unit == "ns" else 1)


def _is_end(values: Instants) -> npt.NDArray[np.bool_]:
    return (values == NEVER) | (values == FOREVER)


def _as_numbers(column: pa.Array) -> tuple[str, pa.Array]:
    if pa.types.is_date32(column.type):
        return "s", column.cast(pa.timestamp("s")).cast(pa.int64())
    if pa.types.is_date64(column.type):
        return "ms", column.cast(pa.int64())
    return column.type.unit, column.cast(pa.int64())


def _from_text(column: pa.Array, unit: Unit, *, null: int) -> Instants:
    """Each distinct text is parsed once; offsets may differ from row to row."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.large_string()).dictionary_encode()
    texts = column.dictionary.to_pylist()
    parsed = np.array([null if text is None else _parse(text, unit) for text in texts] + [null], dtype=np.int64)
    return parsed[as_numbers(pc.fill_null(column.indices, len(texts)))]


def _parse(text: str, unit: Unit) -> int:
    try:
        micros = to_micros(as_utc(datetime.fromisoformat(text.strip())))
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 instant such as 2024-01-31T12:00:00+00:00") from None
    if unit == "us":
        return micros
    finer = _BEYOND_MICROS.search(text)
    nanos = micros * 1_000 + (int(finer[1].ljust(3, "0")) if finer else 0)
    return min(max(nanos, NEVER + 1), FOREVER - 1)
