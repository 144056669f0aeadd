"""A source as a lazy frame: names as in the definitions, times in UTC microseconds, whatever the files hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from tidemill.definitions.catalog import Catalog, Source
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError
from tidemill.offline.files import DataFile, SourceFiles
from tidemill.offline.instants import NEVER, to_instants

UTC_MICROS = pl.Datetime("us", "UTC")


def scan_source(files: SourceFiles, types: Mapping[str, ValueType], *, round_up: bool = False) -> pl.LazyFrame:
    """All rows of a source in the order of their positions.

    Args:
        files: the opened source.
        types: declared types of columns that are named by folders (hive partitions), which are text otherwise.
        round_up: take nanoseconds to the microsecond after them instead of before, so that no event seems older.
    """
    source = files.source
    if not files.files:
        raise SourceError(
            f"Source {source.name!r} at {files.where} holds no Parquet file yet.", hint="Run `tidemill extract`."
        )
    files.require(_time_columns(source))
    batches = _alike(files.files)
    frames = [_scan_files(batch, source, types, round_up) for batch in batches]
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")


def declared_types(catalog: Catalog, source: str) -> dict[str, ValueType]:
    """The types that views declare for columns of a source."""
    found: dict[str, ValueType] = {}
    for view in catalog.views:
        if view.source == source:
            found |= dict(zip(view.join_keys, catalog.key_types(view), strict=True))
            if not view.is_windowed:
                found |= {feature.name: feature.dtype for feature in view.features}
    return found


def _time_columns(source: Source) -> list[str]:
    mapping = dict(source.field_mapping)
    stored = [source.timestamp_field] + ([] if source.known_field is None else [source.known_field])
    return [mapping.get(name, name) for name in stored]


def _alike(files: tuple[DataFile, ...]) -> list[list[DataFile]]:
    """Neighbours that one scan can read: equal schemas, and no values in their folders' names."""
    batches: list[list[DataFile]] = []
    for file in files:
        last = batches[-1][-1] if batches else None
        same = last is not None and last.schema.equals(file.schema) and last.partition == file.partition
        if same and last is not None and (last.filesystem is None) == (file.filesystem is None):
            batches[-1].append(file)
        else:
            batches.append([file])
    return batches


def _scan_files(files: list[DataFile], source: Source, types: Mapping[str, ValueType], round_up: bool) -> pl.LazyFrame:
    frame = _lazy(files)
    partition = files[0].partition
    mapping = dict(source.field_mapping)
    frame = frame.with_columns(
        _constant(name, value, types.get(mapping.get(name, name))) for name, value in partition.items()
    )
    names = {stored: defined for stored, defined in mapping.items() if stored in {*files[0].schema.names, *partition}}
    frame = frame.rename(names)
    times = set(_time_columns(source))
    schema = frame.collect_schema()
    return frame.with_columns(
        _to_utc(name, dtype, round_up)
        for name, dtype in schema.items()
        if isinstance(dtype, pl.Datetime) or (name in times and dtype in (pl.Date, pl.String))
    )


def _lazy(files: list[DataFile]) -> pl.LazyFrame:
    if files[0].filesystem is None:
        return pl.scan_parquet([file.path for file in files], hive_partitioning=False, glob=False)
    tables = [file.open().read() for file in files]
    return pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).lazy()


def _constant(name: str, value: str | None, dtype: ValueType | None) -> pl.Expr:
    wanted = None if dtype is None else dtype.polars()
    literal = pl.lit(value, pl.String)
    return (literal if wanted is None else literal.cast(wanted)).alias(name)


def _to_utc(name: str, dtype: pl.DataType, round_up: bool) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype == pl.String:
        return column.map_batches(_parse, return_dtype=UTC_MICROS)
    assert isinstance(dtype, pl.Datetime)  # noqa: S101 - the caller chose the column by its type
    if round_up and dtype.time_unit == "ns":
        return (-(-column.to_physical() // 1_000)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    column = column.dt.cast_time_unit("us")
    return column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column.dt.convert_time_zone("UTC")


def _parse(texts: pl.Series) -> pl.Series:
    instants = to_instants(texts.to_arrow(compat_level=pl.CompatLevel.oldest()), "us", null=NEVER)
    return as_datetimes(instants, name=texts.name)


def as_datetimes(instants: np.ndarray, *, name: str, unit: str = "us") -> pl.Series:
    """Instants as a UTC column in microseconds; NEVER becomes null."""
    values = instants if unit == "us" else np.where(instants == NEVER, NEVER, instants // 1_000)
    series = pl.Series(name, values)
    return pl.select(pl.when(series != NEVER).then(series).cast(UTC_MICROS).alias(name)).to_series()
