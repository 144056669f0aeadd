"""Outcomes joined to the predictions they answer, as they become known."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from tidemill.clock import as_utc

if TYPE_CHECKING:
    from tidemill.definitions.catalog import LabelDefinition
    from tidemill.project import Project


def known_labels(project: Project, label: LabelDefinition, *, at: datetime) -> pl.DataFrame:
    """What had become known by `at`: `id` (text), `label` (Float64) and `label_known_at`, one row for each id.

    Where an outcome was corrected the newest known counts. Null outcomes are no outcomes, nor are NaN.
    """
    source = project.catalog.source(label.source)
    scanned = project.offline.scan(label.source)
    rows = scanned.select(
        _as_text(label.id_column, scanned.collect_schema()).alias("id"),
        pl.col(label.column).cast(pl.Float64).fill_nan(None).alias("label"),
        pl.coalesce(source.known_column, source.event_column).alias("label_known_at"),
    )
    newest = rows.filter(pl.col("label_known_at") <= as_utc(at), pl.col("label").is_not_null()).sort("label_known_at")
    return newest.unique("id", keep="last", maintain_order=True).collect()


def _as_text(id_column: str, schema: pl.Schema) -> pl.Expr:
    """Ids as predictions are logged under them; pandas writes whole numbers as floats where one is missing."""
    column = pl.col(id_column)
    if schema[id_column].is_float():
        column = pl.when(column == column.floor()).then(column).cast(pl.Int64, strict=False)
    return column.cast(pl.String)


def labelled_predictions(
    project: Project, model: str, *, at: datetime, start: datetime | None = None, end: datetime | None = None
) -> pl.DataFrame:
    """Predictions made in `[start, end)` with `label` and `label_known_at`, null where no outcome is known by `at`.

    One row for each prediction, in the order they were made; the log's columns come first.
    """
    made = project.predictions.scan(model, start, end)
    labels = known_labels(project, project.catalog.model(model).label, at=at)
    return made.join(labels, on="id", how="left", maintain_order="left")
