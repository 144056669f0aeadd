"""What can be seen to go wrong before anything is read: missing columns, keys of another type, names that meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from tidemill.definitions.catalog import AggregationFunction, Catalog, View
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError, SpineError
from tidemill.offline.families import family
from tidemill.offline.files import SourceFiles
from tidemill.offline.history import History
from tidemill.offline.keys import KeyTypeError, as_declared
from tidemill.offline.selection import Selection, ViewSelection
from tidemill.offline.spine import Spine

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

_WITHOUT_A_NUMBER = {"text", "bytes"}


def check_spine(catalog: Catalog, selection: Selection, spine: Spine) -> None:
    """Raise SpineError where a key is missing or of another type, or a column has the name of a feature."""
    for item in selection.views:
        keys = spine.keys(dict(item.keys), view=item.view.name)
        for series, (_, column), dtype in zip(keys.get_columns(), item.keys, catalog.key_types(item.view), strict=True):
            if len(series) and not _fits(series.dtype, dtype):
                raise SpineError(
                    f"Column {column!r} of the spine is {series.dtype}, but the keys of view {item.view.name!r} "
                    f"are {dtype.name}.",
                    hint=f"Cast it: {column}.cast(pl.{dtype.polars()}).",
                )
            if series.dtype.is_float() or series.dtype == pl.UInt64:
                _check_numbers(series.alias(column), dtype, item.view)
    shared = [output.name for output in selection.outputs if output.name in spine.columns]
    if shared:
        raise SpineError(
            f"The spine already has a column {', '.join(map(repr, shared))}, which is asked for as a feature.",
            hint="Rename or drop it in the spine, or ask with full_feature_names=True.",
        )


def _check_numbers(series: pl.Series, dtype: ValueType, view: View) -> None:
    """Raise SpineError for numbers that are no keys: fractions, and what does not fit."""
    try:
        as_declared(series.to_frame(), [dtype])
    except KeyTypeError as error:
        raise SpineError(
            f"Column {series.name!r} of the spine, which view {view.name!r} is keyed by, {error}.",
            hint=f"Its keys are {dtype.name}: correct these values, or leave them null.",
        ) from None


def check_request(selection: Selection, spine: Spine) -> None:
    """Raise SpineError where a request field of an on-demand view is not among the spine's columns."""
    for item in selection.on_demand:
        missing = [field.name for field in item.view.request if field.name not in spine.columns]
        if missing:
            raise SpineError(
                f"The spine has no column {', '.join(map(repr, missing))}, which on-demand view {item.view.name!r} "
                "takes from the request.",
                hint=f"The spine has: {', '.join(spine.columns)}.",
            )


def check_sources(store: OfflineStore, selection: Selection) -> None:
    """Raise SourceError where a view's source is missing, its files lack what the view reads, or it sums text."""
    for item in selection.views:
        files = store.source_files(item.view.source)
        History(files.source, files).files.require(_columns(item))
        if files.files:
            _check_windows(item.view, files)


def _check_windows(view: View, files: SourceFiles) -> None:
    for part in view.aggregations:
        if part.function is AggregationFunction.COUNT or not part.column:
            continue
        dtype = files.type_of(part.column)
        of_anything = part.function is AggregationFunction.COUNT_DISTINCT
        if pa.types.is_nested(dtype) or (family(dtype) in _WITHOUT_A_NUMBER and not of_anything):
            raise SourceError(
                f"Column {part.column!r} of source {view.source!r} is {dtype}, and {part.name!r} of view "
                f"{view.name!r} takes its {part.function.value} over a window.",
                hint="Of text and bytes there are count and count_distinct, of lists and structs only count.",
            )


def _columns(item: ViewSelection) -> list[str]:
    view = item.view
    read = (
        [part.column for part in view.aggregations if part.column]
        if view.is_windowed
        else [feature.name for feature in item.features]
    )
    return list(dict.fromkeys([*view.join_keys, *read]))


def _fits(dtype: pl.DataType, declared: ValueType) -> bool:
    if dtype == pl.Null:
        return True
    if declared is ValueType.STRING:
        return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    if declared is ValueType.BYTES:
        return dtype == pl.Binary
    if declared is ValueType.BOOL:
        return dtype == pl.Boolean
    if declared is ValueType.UNIX_TIMESTAMP:
        return isinstance(dtype, pl.Datetime | pl.Date)
    return dtype.is_numeric() and not isinstance(dtype, pl.Decimal | pl.Int128 | pl.UInt128)
