"""Telling from a table which column is the key, which the event time, and which are features."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from tidemill.errors import InputError

FEAST_TYPES: dict[type[pl.DataType], str] = {
    pl.Int8: "Int32",
    pl.Int16: "Int32",
    pl.Int32: "Int32",
    pl.Int64: "Int64",
    pl.UInt8: "Int32",
    pl.UInt16: "Int32",
    pl.UInt32: "Int64",
    pl.Float32: "Float32",
    pl.Float64: "Float64",
    pl.String: "String",
    pl.Categorical: "String",
    pl.Enum: "String",
    pl.Boolean: "Bool",
    pl.Datetime: "UnixTimestamp",
    pl.Date: "UnixTimestamp",
}
_KNOWN_NAMES = ("created", "created_at", "created_timestamp")
_KEY_NAMES = ("id", "key", "user", "customer", "driver", "entity", "account", "device")


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """A table as a feature view: `features` are (column, Feast type) pairs, `known` the created timestamp column."""

    name: str
    key: str
    key_type: str
    time: str
    known: str | None
    features: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()

    @property
    def entity(self) -> str:
        name = identifier(self.key, lower=False)
        return name.removesuffix("_id") or name

    @property
    def view(self) -> str:
        return f"{self.name}_history"

    @property
    def service(self) -> str:
        return f"{self.name}_v1"


def identifier(text: str, *, lower: bool = True) -> str:
    """A name usable in Python, in Feast and as a folder's."""
    name = re.sub(r"\W+", "_", text.lower() if lower else text).strip("_")
    return name if name and not name[0].isdigit() else f"p_{name}"


def guess_shape(table: pl.DataFrame, *, name: str, key: str | None, time: str | None) -> TableShape:
    """Raises InputError where a named column is missing, or none or several columns could be meant."""
    time = _checked(table, time, "--time") or _guess_time(table)
    key = _checked(table, key, "--key") or _guess_key(table, without=time)
    known = next((column for column in _KNOWN_NAMES if column != time and _is_time(table.schema.get(column))), None)
    rest = [column for column in table.columns if column not in {key, time, known}]
    typed = [(column, FEAST_TYPES.get(table.schema[column].base_type())) for column in rest]
    features = tuple((column, dtype) for column, dtype in typed if dtype is not None)
    if not features:
        raise InputError(f"Beside the key {key!r} and the time {time!r} the table has no column that can be a feature.")
    key_type = FEAST_TYPES.get(table.schema[key].base_type())
    if key_type not in {"Int32", "Int64", "String"}:
        raise InputError(
            f"The key {key!r} is {table.schema[key]}; keys are integers that fit 64 bits with a sign, or strings.",
            hint="Name another: --key.",
        )
    return TableShape(
        name=name,
        key=key,
        key_type=key_type,
        time=time,
        known=known,
        features=features,
        left_out=tuple(column for column, dtype in typed if dtype is None),
    )


def _checked(table: pl.DataFrame, column: str | None, option: str) -> str | None:
    if column is not None and column not in table.columns:
        raise InputError(
            f"{option} {column!r} is no column of the table.", hint=f"Columns: {', '.join(table.columns)}."
        )
    return column


def _guess_time(table: pl.DataFrame) -> str:
    times = [column for column, dtype in table.schema.items() if _is_time(dtype)]
    preferred = [column for column in times if not column.startswith("created")]
    if len(preferred) != 1:
        raise _unclear_time(times, table.columns)
    return preferred[0]


def _unclear_time(times: list[str], columns: list[str]) -> InputError:
    if not times:
        return InputError(
            f"No column holds dates or instants, so nobody knows when a row happened; columns: {', '.join(columns)}.",
            hint="Point-in-time features need an event time: add one, or store it as a date or timestamp such as "
            "2024-03-25 10:00. Dates with the month first, and seconds since 1970, are not taken for times.",
        )
    return InputError(f"The event time could be any of: {', '.join(times)}.", hint="Name the column with --time.")


def _is_time(dtype: pl.DataType | None) -> bool:
    return isinstance(dtype, pl.Datetime | pl.Date)


def _guess_key(table: pl.DataFrame, *, without: str) -> str:
    usable = [
        c
        for c, dtype in table.schema.items()
        if c != without and (dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum))
    ]
    named = [c for c in usable if any(c.lower() == n or c.lower().endswith(f"_{n}") for n in _KEY_NAMES)]
    for candidates in (named, usable[:1]):
        if candidates:
            return candidates[0]
    raise InputError("No column can be the entity's key.", hint="Name an integer or string column with --key.")
