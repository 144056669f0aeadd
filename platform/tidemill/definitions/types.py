"""Value types: Feast's names and numbers, and what they are in Polars.

The numbers are those of Feast's `ValueType` and of the wire format, so that neither side of the codec needs Feast.
"""

from __future__ import annotations

from enum import IntEnum

import polars as pl


class ValueType(IntEnum):
    """A feature's or key's type. The member's value is Feast's `ValueType` number."""

    BYTES = 1
    STRING = 2
    INT32 = 3
    INT64 = 4
    DOUBLE = 5
    FLOAT = 6
    BOOL = 7
    UNIX_TIMESTAMP = 8
    BYTES_LIST = 11
    STRING_LIST = 12
    INT32_LIST = 13
    INT64_LIST = 14
    DOUBLE_LIST = 15
    FLOAT_LIST = 16
    BOOL_LIST = 17
    UNIX_TIMESTAMP_LIST = 18
    MAP = 20
    MAP_LIST = 21
    BYTES_SET = 22
    STRING_SET = 23
    INT32_SET = 24
    INT64_SET = 25
    DOUBLE_SET = 26
    FLOAT_SET = 27
    BOOL_SET = 28
    UNIX_TIMESTAMP_SET = 29
    JSON = 32
    STRUCT = 34
    DECIMAL = 44

    @property
    def is_list(self) -> bool:
        return self in _ELEMENT

    @property
    def is_set(self) -> bool:
        """Whether neither order nor repetition of its values says anything."""
        return self.name.endswith("_SET")

    @property
    def element(self) -> ValueType:
        """The scalar type inside a list or set type; the type itself for a scalar."""
        return _ELEMENT.get(self, self)

    @property
    def is_numeric(self) -> bool:
        return self in {ValueType.INT32, ValueType.INT64, ValueType.DOUBLE, ValueType.FLOAT}

    @property
    def is_integer(self) -> bool:
        return self in {ValueType.INT32, ValueType.INT64}

    def polars(self) -> pl.DataType | None:
        """The Polars type a column of this type has, or None where the source's own type is kept (maps, structs)."""
        if self.is_list:
            inner = self.element.polars()
            return None if inner is None else pl.List(inner)
        return _POLARS.get(self)


_SCALARS = ("BYTES", "STRING", "INT32", "INT64", "DOUBLE", "FLOAT", "BOOL", "UNIX_TIMESTAMP")
_ELEMENT = {ValueType[f"{name}_{kind}"]: ValueType[name] for name in _SCALARS for kind in ("LIST", "SET")}
_POLARS: dict[ValueType, pl.DataType] = {
    ValueType.BYTES: pl.Binary(),
    ValueType.STRING: pl.String(),
    ValueType.INT32: pl.Int32(),
    ValueType.INT64: pl.Int64(),
    ValueType.DOUBLE: pl.Float64(),
    ValueType.FLOAT: pl.Float32(),
    ValueType.BOOL: pl.Boolean(),
    ValueType.UNIX_TIMESTAMP: pl.Datetime("us", "UTC"),
    ValueType.JSON: pl.String(),
}


def from_seconds(seconds: pl.Series, wanted: pl.Datetime) -> pl.Series:
    """Whole numbers as instants: seconds since 1970, as Feast takes them. Raises PolarsError for what is no instant."""
    seconds, per_second = seconds.cast(pl.Int64), _TICKS[wanted.time_unit]
    ticks = seconds * per_second
    if not (ticks // per_second).equals(seconds, null_equal=True):
        raise pl.exceptions.InvalidOperationError("it holds seconds beyond all times")
    return ticks.cast(pl.Datetime(wanted.time_unit)).dt.replace_time_zone(wanted.time_zone)


_TICKS = {"ms": 10**3, "us": 10**6, "ns": 10**9}
