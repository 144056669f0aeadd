"""Feast's data quality metrics (`feast monitor run`): computed from the sources, kept as Parquet in the repository.

The files lie where Feast's own stores for files put them, in the same columns, so that what was measured before the
offline store was changed goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource
from feast.monitoring.metrics_calculator import MetricsCalculator
from feast.monitoring.monitoring_utils import (
    MONITORING_DIR,
    monitoring_parquet_meta,
    normalize_monitoring_row,
)

from tidemill.feast.files import replace_file
from tidemill.feast.pulls import Pulled, columns_of, rows_between
from tidemill.file_lock import held_alone
from tidemill.offline.files import resolve

_PATIENCE = 120.0  # seconds for another process to end its change, which takes less than one
_INSTANT = pl.Datetime("us", "UTC")
_TYPES: dict[str, pl.DataType] = {
    "metric_date": pl.Date(),
    "is_baseline": pl.Boolean(),
    **dict.fromkeys(("computed_at", "max_event_timestamp", "started_at", "completed_at"), _INSTANT),
    **dict.fromkeys(("row_count", "null_count", "total_row_count", "total_features"), pl.Int64()),
    **dict.fromkeys(("features_with_nulls", "total_feature_views"), pl.Int64()),
    **dict.fromkeys(("null_rate", "avg_null_rate", "max_null_rate", "mean", "stddev", "min_val"), pl.Float64()),
    **dict.fromkeys(("max_val", "p50", "p75", "p90", "p95", "p99"), pl.Float64()),
}
"""The types of what is kept; every other column is text."""


def measure(
    root: Path,
    source: FileSource,
    features: Sequence[tuple[str, str]],
    *,
    time_column: str,
    start: datetime | None,
    end: datetime | None,
    bins: int,
    most_values: int,
) -> list[dict[str, Any]]:
    """Feast's statistics of `features`, each (name, "numeric" or "categorical"), over event times in `[start, end]`.

    Means, quantiles and histograms are of finite numbers, on which alone they are defined: a NaN or an infinity counts
    as a row and not as a null. Features that the source does not hold are left out.
    """
    present = set(_scan(root, source, time_column, [], None, None).collect_schema().names())
    wanted = [(name, kind) for name, kind in features if name in present]
    if not wanted:
        return []
    rows = _scan(root, source, time_column, [name for name, _ in wanted], start, end).collect()
    finite = rows.with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name))
        for name, kind in wanted
        if kind == "numeric" and rows.schema[name].is_float()
    )
    calculator = MetricsCalculator(histogram_bins=bins, top_n=most_values)
    table: pa.Table = finite.to_arrow(compat_level=pl.CompatLevel.oldest())
    found = calculator.compute_all(table, wanted)
    for metrics in found:
        nulls = rows.get_column(metrics["feature_name"]).null_count()
        metrics |= {"null_count": nulls, "null_rate": nulls / rows.height if rows.height else 0.0}
    return found


def newest_time(root: Path, source: FileSource, time_column: str) -> datetime | None:
    """The newest event time of a source, UTC; None where it is empty, not there yet, or keeps no such time.

    Feast asks so whether any features were logged; logs may share their folder with other files.
    """
    place = resolve(source.path, root)
    if "://" not in place and not Path(place).exists():
        return None
    if time_column not in dict(columns_of(root, source)):
        return None
    rows = _scan(root, source, time_column, [time_column], None, None)
    return rows.select(pl.col(time_column).max()).collect().item()


def prepare(root: Path) -> None:
    """The folder of what is kept. Its files appear with the first rows."""
    (root / MONITORING_DIR).mkdir(parents=True, exist_ok=True)


def keep(root: Path, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of a kind of metrics; a row takes the place of an earlier one with the same key."""
    if not rows:
        return
    name, columns, key = monitoring_parquet_meta(kind)
    fresh = pl.DataFrame([_storable(row, columns) for row in rows], schema=_schema(columns), strict=False)
    with _alone(root) as folder:
        there = _read(folder / name, columns)
        _write(folder / name, pl.concat([there, fresh]).unique(key, keep="last", maintain_order=True))


def kept(
    root: Path, project: str, kind: str, filters: Mapping[str, Any] | None, start: date | None, end: date | None
) -> list[dict[str, Any]]:
    """What was kept of a kind of metrics, by date; `filters` are values of columns, None meaning any."""
    name, columns, _ = monitoring_parquet_meta(kind)
    wanted = {column: value for column, value in (filters or {}).items() if value is not None}
    if project:
        wanted["project_id"] = project
    conditions = [pl.col(column) == value for column, value in wanted.items()]
    if start is not None:
        conditions.append(pl.col("metric_date") >= start)
    if end is not None:
        conditions.append(pl.col("metric_date") <= end)
    rows = _read(root / MONITORING_DIR / name, columns).filter(*conditions)
    return [normalize_monitoring_row(row) for row in rows.sort("metric_date", maintain_order=True).to_dicts()]


def end_baseline(root: Path, project: str, **named: str | None) -> None:
    """The rows of a project that `named` columns name are a baseline no longer."""
    name, columns, _ = monitoring_parquet_meta("feature")
    chosen = {"project_id": project} | {column: value for column, value in named.items() if value is not None}
    is_chosen = pl.all_horizontal(pl.col(column) == value for column, value in chosen.items())
    with _alone(root) as folder:
        rows = _read(folder / name, columns)
        if not rows.is_empty():
            _write(folder / name, rows.with_columns(is_baseline=pl.col("is_baseline") & ~is_chosen))


def _scan(
    root: Path, source: FileSource, time_column: str, columns: list[str], start: datetime | None, end: datetime | None
) -> pl.LazyFrame:
    return rows_between(root, source, Pulled(features=columns, time=time_column), start, end)


@contextmanager
def _alone(root: Path) -> Iterator[Path]:
    """The folder, while no other process or thread changes it: Feast measures in the background of its `apply`."""
    folder = root / MONITORING_DIR
    with held_alone(folder / ".lock", doing="keeping Feast's metrics", patience=_PATIENCE):
        yield folder


def _schema(columns: Sequence[str]) -> dict[str, pl.DataType]:
    return {column: _TYPES.get(column, pl.String()) for column in columns}


def _storable(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Only what is kept, instants as such (Feast hands back the texts it was given), and histograms as text."""
    found = {column: row.get(column) for column in columns}
    for column, value in found.items():
        if _TYPES.get(column) == _INSTANT and isinstance(value, str):
            found[column] = datetime.fromisoformat(value)
        elif column == "metric_date" and isinstance(value, str):
            found[column] = date.fromisoformat(value)
    histogram = found.get("histogram")
    if histogram is not None and not isinstance(histogram, str):
        found["histogram"] = json.dumps(histogram)
    return found


def _read(file: Path, columns: Sequence[str]) -> pl.DataFrame:
    """What lies in a file, in our types: Feast's own stores leave it to pandas which they are."""
    schema = _schema(columns)
    if not file.is_file():
        return pl.DataFrame(schema=schema)
    there = pl.read_parquet(file)
    return there.select(
        _as(there, column, dtype) if column in there.columns else pl.lit(None, dtype).alias(column)
        for column, dtype in schema.items()
    )


def _as(there: pl.DataFrame, column: str, dtype: pl.DataType) -> pl.Expr:
    found = there.schema[column]
    if dtype == _INSTANT and isinstance(found, pl.Datetime) and found.time_zone is None:
        return pl.col(column).dt.replace_time_zone("UTC").cast(dtype)
    return pl.col(column).cast(dtype)


def _write(file: Path, rows: pl.DataFrame) -> None:
    replace_file(file, rows.write_parquet)
