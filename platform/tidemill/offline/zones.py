"""Time zones that Arrow can name and Polars cannot, such as +05:30: the same instants are read in UTC."""

from __future__ import annotations

from functools import lru_cache

import polars as pl
import pyarrow as pa


def has_foreign_zone(schema: pa.Schema) -> bool:
    """Whether a column of these is in a zone that Polars does not know."""
    return any(_is_foreign(dtype) for dtype in schema.types)


def in_known_zones(table: pa.Table) -> pa.Table:
    """The table with columns of such zones in UTC. Instants stay what they are, and no value is copied."""
    for place, field in enumerate(table.schema):
        if _is_foreign(field.type):
            column = table.column(place).cast(pa.timestamp(field.type.unit, "UTC"))
            table = table.set_column(place, field.name, column)
    return table


def _is_foreign(dtype: pa.DataType) -> bool:
    return pa.types.is_timestamp(dtype) and dtype.tz is not None and not _is_known(dtype.tz)


@lru_cache(maxsize=1_000)
def _is_known(zone: str) -> bool:
    try:
        pl.from_arrow(pa.array([], pa.timestamp("us", zone)))
    except pl.exceptions.ComputeError:
        return False
    return True
