"""What can be seen to go wrong before anything is read: missing columns, keys of another type, names that meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tidemill.definitions.catalog import Catalog
from tidemill.definitions.types import ValueType
from tidemill.errors import SpineError
from tidemill.offline.history import History
from tidemill.offline.selection import Selection, ViewSelection
from tidemill.offline.spine import Spine

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore


def check_spine(catalog: Catalog, selection: Selection, spine: Spine) -> None:
    """Raise SpineError where a key is missing or of another type, or a column has the name of a feature."""
    for item in selection.views:
        keys = spine.keys(dict(item.keys), view=item.view.name)
        for series, (_, column), dtype in zip(keys.get_columns(), item.keys, catalog.key_types(item.view), strict=True):
            if not _fits(series.dtype, dtype):
                raise SpineError(
                    f"Column {column!r} of the spine is {series.dtype}, but the keys of view {item.view.name!r} "
                    f"are {dtype.name}.",
                    hint=f"Cast it: {column}.cast(pl.{dtype.polars()}).",
                )
    shared = [output.name for output in selection.outputs if output.name in spine.columns]
    if shared:
        raise SpineError(
            f"The spine already has a column {', '.join(map(repr, shared))}, which is asked for as a feature.",
            hint="Rename or drop it in the spine, or ask with full_feature_names=True.",
        )


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
    """Raise SourceError where a view's source is missing, or its files lack what the view reads."""
    for item in selection.views:
        files = store.source_files(item.view.source)
        History(files.source, files).files.require(_columns(item))


def _columns(item: ViewSelection) -> list[str]:
    view = item.view
    read = (
        [part.column for part in view.aggregations if part.column and part.column != "*"]
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
    return dtype.is_numeric() and not isinstance(dtype, pl.Decimal)
