"""Pushed rows as frames: declared columns in their declared types, everything else as JSON had it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tidemill.definitions.catalog import Catalog, Source, Stream, View
from tidemill.definitions.series import declared_series
from tidemill.definitions.types import ValueType
from tidemill_serving.exchange import json_kind
from tidemill_serving.problems import Fault, MalformedBodyError, RejectedRowsError
from tidemill_serving.values import WrongTypeError, expected, reader_of

_MOST_FAULTS = 20
_MOST_COLUMNS = 1_000


def stream_of(catalog: Catalog, name: str) -> Stream:
    """The push source of that name, or the only one behind a batch source of that name. Raises NotDefinedError."""
    from tidemill.online.push import (
        find_stream,
    )  # takes PyArrow along, which a server that is never pushed to can spare

    return catalog.stream(find_stream(catalog, name))


def columns_of_rows(rows: Any, *, limit: int) -> dict[str, list[Any]]:
    """Rows (an array of objects) by column; a field that a row lacks is null there."""
    if type(rows) is not list or not all(type(row) is dict for row in rows):
        raise MalformedBodyError("`rows` is missing or wrong; an array of objects was expected.")
    if not rows:
        raise RejectedRowsError("`rows` is empty; at least one row was expected.")
    _check_count(len(rows), limit)
    names: dict[str, Any] = {}
    for row in rows:
        names |= row
        _check_width(len(names))  # at once: as many columns as rows would be too many values to look at
    return {name: [row.get(name) for row in rows] for name in names}


def columns_of_frame(frame: Any, *, limit: int) -> dict[str, list[Any]]:
    """Columns (an object of equally long arrays), as Feast's clients send them."""
    if type(frame) is not dict or not frame or not all(type(column) is list for column in frame.values()):
        raise MalformedBodyError("`df` is missing or wrong; an object of arrays was expected.")
    lengths = {len(column) for column in frame.values()}
    if len(lengths) > 1:
        raise MalformedBodyError(f"The arrays of `df` have different lengths: {sorted(lengths)}.")
    _check_count(lengths.pop(), limit)
    _check_width(len(frame))
    return frame


def pushed_types(catalog: Catalog, stream: Stream) -> dict[str, ValueType]:
    """What is declared of a stream's rows: its instants, and the keys and plain features of the views it feeds."""
    found = _instants(catalog.source(stream.source))
    for view in catalog.views_of_stream(stream.name):
        found |= _view_types(catalog, view)
    return found


def view_types(catalog: Catalog, view: View) -> dict[str, ValueType]:
    """The same for rows written to one view."""
    return _instants(catalog.source(view.source)) | _view_types(catalog, view)


def typed_frame(columns: Mapping[str, Sequence[Any]], types: Mapping[str, ValueType]) -> pl.DataFrame:
    """A frame with the declared columns in their types. Raises RejectedRowsError naming the values that do not fit."""
    faults: list[Fault] = []
    series = [_series(name, column, types.get(name), faults) for name, column in columns.items()]
    if faults:
        raise RejectedRowsError(
            f"{faults[0].where}: found {faults[0].found}, expected {faults[0].expected}.",
            faults=faults[:_MOST_FAULTS],
        )
    return pl.DataFrame(series)


def _series(name: str, column: Sequence[Any], dtype: ValueType | None, faults: list[Fault]) -> pl.Series:
    if dtype is None:
        return pl.Series(name, column, strict=False)
    read, values = reader_of(dtype), []
    for index, value in enumerate(column):
        try:
            values.append(None if value is None else read(value))
        except WrongTypeError:
            where = f"rows[{index}].{name}"
            faults.append(
                Fault(where=where, found=f"the {json_kind(value)} {str(value)[:40]}", expected=expected(dtype))
            )
            values.append(None)
    return declared_series(name, values, dtype)


def _instants(source: Source) -> dict[str, ValueType]:
    mapping = dict(source.field_mapping)
    names = [source.timestamp_field, *([source.known_field] if source.known_field is not None else [])]
    return {mapping.get(name, name): ValueType.UNIX_TIMESTAMP for name in names}


def _view_types(catalog: Catalog, view: View) -> dict[str, ValueType]:
    keys = dict(zip(view.join_keys, catalog.key_types(view), strict=True))
    return keys if view.is_windowed else keys | {feature.name: feature.dtype for feature in view.features}


def _check_width(columns: int) -> None:
    if columns > _MOST_COLUMNS:
        raise RejectedRowsError(f"The rows have more than {_MOST_COLUMNS:,} different fields.")


def _check_count(count: int, limit: int) -> None:
    if count > limit:
        raise RejectedRowsError(
            f"{count:,} rows were sent; at most {limit:,} are taken in one request.",
            hint="Send several requests, or raise `max_rows`.",
        )
