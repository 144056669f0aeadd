"""The spine of a model: who was asked about and when, with the outcomes known by some instant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from tidemill.definitions.catalog import Catalog, Model, Source
from tidemill.errors import DefinitionError, TrainingDataError

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore
    from tidemill.project import Project

LABEL_KNOWN = "__label_known"
_KNOWN = "__known"


def build_spine(project: Project, model: str | Model, start: datetime | None, end: datetime) -> pl.DataFrame:
    """One row for each prediction due in `[start, end)` whose outcome was known before `end`, by request time, then id.

    Columns: the spine's id, request time (Datetime us UTC), join keys, request columns, and the label as Int8 0 or 1.
    Raises TrainingDataError where no outcome is known.
    """
    definition = project.catalog.model(model) if isinstance(model, str) else model
    return labelled(spine_of(project.offline, project.catalog, definition, start, end), definition)


def spine_of(
    offline: OfflineStore, catalog: Catalog, model: Model, start: datetime | None, end: datetime
) -> pl.DataFrame:
    """One row for each prediction due in `[start, end)`, its label known or not, for any catalog.

    Columns as in `build_spine`, the label as in its source and null where it was not known before `end`,
    then `__label_known`, when it became known. A row or label that became known at `end` or later is not seen, and of
    several known before it the newest counts, so that the same call gives the same spine for ever, whatever arrives
    later. Raises TrainingDataError where the interval ends before it starts.
    """
    if start is not None and end <= start:
        raise TrainingDataError(f"The interval ends ({end}) before it starts ({start}).", hint="Swap the two.")
    rows = _rows(offline, catalog, model, start, end)
    labels = _labels(offline, catalog, model, end)
    mine, theirs = _alike(model, rows.collect_schema()[model.spine.id_column], labels.collect_schema()[_LABEL_ID])
    joined = rows.join(labels, left_on=mine, right_on=theirs, how="left").select(pl.exclude(_LABEL_ID))
    ordered = joined.sort(model.spine.time_column, model.spine.id_column, maintain_order=True)
    try:
        return ordered.collect()
    except (pl.exceptions.ComputeError, OSError) as error:
        offline.source_files(model.spine.source).check_readable()
        offline.source_files(model.label.source).check_readable()
        raise TrainingDataError(f"The spine of {model.name!r} cannot be read: {error}.") from error


def labelled(spine: pl.DataFrame, model: Model) -> pl.DataFrame:
    """The rows whose label is known, the label as Int8 0 or 1, without `__label_known`.

    Raises TrainingDataError where there is none, or where the label is anything but a yes or no.
    """
    if spine.is_empty():
        raise TrainingDataError(
            f"Source {model.spine.source!r} asks about nobody in that time.", hint="Is it extracted for that time?"
        )
    known = spine.filter(pl.col(model.label.column).is_not_null()).drop(LABEL_KNOWN)
    if known.is_empty():
        raise TrainingDataError(
            f"No label of {model.label.source!r} is known for any of the {spine.height:,} rows of the spine.",
            hint=f"Is {model.label.source!r} extracted for that time, and does {model.label.id_column!r} match "
            f"{model.spine.id_column!r}?",
        )
    return known.with_columns(_outcome(known[model.label.column]))


def _rows(offline: OfflineStore, catalog: Catalog, model: Model, start: datetime | None, end: datetime) -> pl.LazyFrame:
    spine, source = model.spine, catalog.source(model.spine.source)
    frame = offline.scan(spine.source)
    schema = frame.collect_schema()
    columns = {spine.id_column: spine.id_column, spine.time_column: spine.time_column}
    columns |= dict(spine.keys) | {name: name for name in spine.request}
    _require(schema, columns.values(), source)
    time = _instant(spine.time_column, schema)
    within = (time < end) if start is None else ((time >= start) & (time < end))
    frame = frame.filter(within, _known_before(source, schema, end))
    picked = [_instant(name, schema) if name == spine.time_column else pl.col(name) for name in columns.values()]
    named = [column.alias(name) for name, column in zip(columns, picked, strict=True)]
    frame = frame.select(*named, _known(source, schema).alias(_KNOWN))
    return _newest(frame, spine.id_column)


def _labels(offline: OfflineStore, catalog: Catalog, model: Model, end: datetime) -> pl.LazyFrame:
    label, source = model.label, catalog.source(model.label.source)
    frame = offline.scan(label.source)
    schema = frame.collect_schema()
    _require(schema, (label.id_column, label.column), source)
    frame = frame.filter(_known_before(source, schema, end), _is_given(label.column, schema)).select(
        pl.col(label.id_column).alias(_LABEL_ID), pl.col(label.column), _known(source, schema).alias(_KNOWN)
    )
    return _newest(frame, _LABEL_ID, keep_known=True)


_LABEL_ID = "__label_id"


def _is_given(column: str, schema: pl.Schema) -> pl.Expr:
    """Whether there is a value; a NaN among floats is how pandas writes that there is none."""
    given = pl.col(column).is_not_null()
    return given & pl.col(column).is_not_nan() if schema[column].is_float() else given


def _alike(model: Model, mine: pl.DataType, theirs: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    """The ids of the spine and of its labels so that equal ones meet, whatever types they were written in."""
    kinds = {_kind(mine), _kind(theirs)} - {"nothing"}
    if len(kinds) > 1:
        raise DefinitionError(
            f"Column {model.spine.id_column!r} of {model.spine.source!r} is {mine}, but {model.label.id_column!r} of "
            f"{model.label.source!r}, which should name the same rows, is {theirs}.",
            hint="Write both with one type.",
        )
    return _as(pl.col(model.spine.id_column), mine, theirs), _as(pl.col(_LABEL_ID), theirs, mine)


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "numbers"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    return "nothing" if dtype == pl.Null else str(dtype)


def _as(column: pl.Expr, dtype: pl.DataType, other: pl.DataType) -> pl.Expr:
    """Ids of one side in a type that joins with the other's. A float that is no whole number is no id."""
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if dtype == pl.Null:
        return column.cast(pl.String if _kind(other) == "text" else other)
    if dtype.is_float() and other.is_integer():
        return pl.when(column == column.floor()).then(column).cast(other, strict=False)
    return column


def _newest(frame: pl.LazyFrame, id_column: str, *, keep_known: bool = False) -> pl.LazyFrame:
    """Of the rows with one id the one known last; rows without an id are nobody's."""
    kept = frame.filter(pl.col(id_column).is_not_null()).sort(_KNOWN, nulls_last=False, maintain_order=True)
    kept = kept.unique(id_column, keep="last", maintain_order=True)
    return kept.rename({_KNOWN: LABEL_KNOWN}) if keep_known else kept.drop(_KNOWN)


def _known(source: Source, schema: pl.Schema) -> pl.Expr:
    """When a row became known; at its event time where the source does not say."""
    event = _instant(source.timestamp_field, schema)
    if source.known_field is None or source.known_field not in schema:
        return event
    return pl.coalesce(_instant(source.known_field, schema), event)


def _known_before(source: Source, schema: pl.Schema, end: datetime) -> pl.Expr:
    return _known(source, schema) < end


def _instant(name: str, schema: pl.Schema) -> pl.Expr:
    """A column of times as Datetime us UTC; a naive one is read as UTC."""
    dtype, column = schema[name], pl.col(name)
    if not isinstance(dtype, pl.Datetime):
        raise DefinitionError(f"Column {name!r} should hold instants, and holds {dtype}.")
    zoned = column.dt.convert_time_zone("UTC") if dtype.time_zone else column.dt.replace_time_zone("UTC")
    return zoned.dt.cast_time_unit("us")


def _require(schema: pl.Schema, names: Iterable[str], source: Source) -> None:
    missing = [name for name in names if name not in schema]
    if missing:
        raise DefinitionError(
            f"Source {source.name!r} has no column {', '.join(map(repr, missing))}.",
            hint=f"It has: {', '.join(schema.names())}.",
        )


def _outcome(label: pl.Series) -> pl.Series:
    """The label as Int8 0 or 1, from a boolean or from numbers that are 0 and 1."""
    if label.dtype == pl.Boolean:
        return label.cast(pl.Int8)
    if label.dtype.is_numeric() and ((label == 0) | (label == 1)).all():
        return label.cast(pl.Int8)
    seen = ", ".join(map(str, label.unique().sort().head(5).to_list()))
    raise TrainingDataError(
        f"Label {label.name!r} should be true or false, or 1 or 0, and holds {label.dtype}: {seen}.",
        hint="Only yes-or-no outcomes can be predicted so far; compute one in the label's source.",
    )
