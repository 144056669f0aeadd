"""A source as a lazy frame: names as in the definitions, times in UTC microseconds, whatever the files hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa

from tidemill.definitions.catalog import Catalog, Source
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError
from tidemill.offline.casting import cast_column
from tidemill.offline.data_file import DataFile
from tidemill.offline.files import RowGroup, SourceFiles
from tidemill.offline.instants import NEVER, Unit, to_instants
from tidemill.offline.zones import has_foreign_zone, in_known_zones

UTC_MICROS = pl.Datetime("us", "UTC")
_PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}
_LEAST, _GREATEST = -(2**63) + 1, 2**63 - 1


def scan_source(
    files: SourceFiles,
    types: Mapping[str, ValueType],
    *,
    unit: Unit = "us",
    between: tuple[int, int] | None = None,
) -> pl.LazyFrame:
    """The rows of a source in the order of their positions.

    Args:
        files: the opened source.
        types: declared types of columns that are named by folders (hive partitions), which are text otherwise.
        unit: of event and known times; other instants are microseconds. What is finer is rounded down.
        between: a closed range of event times, in `unit`, outside of which rows may be left out. Files and row groups
            whose statistics lie outside are not read.
    """
    source = files.source
    if not files.files:
        raise SourceError(
            f"Source {source.name!r} at {files.where} holds no Parquet file yet.", hint="Run `tidemill extract`."
        )
    files.require(_time_columns(source))
    batches = _alike(files.files if between is None else _within(files, between, unit))
    frames = [_scan_files(batch, source, types, unit, between) for batch in batches]
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")


def scan_in_pieces(
    files: SourceFiles, types: Mapping[str, ValueType], *, unit: Unit, between: tuple[int, int], rows: int
) -> Iterator[pl.LazyFrame]:
    """`scan_source` of one run of row groups after the other, each of about `rows` rows; at least one."""
    starts = np.cumsum([0, *(file.metadata.num_rows for file in files.files)])
    runs: list[list[RowGroup]] = []
    for group in groups_between(files, between, unit):
        run = runs[-1] if runs else []
        follows = bool(run) and run[-1].file == group.file and run[-1].offset + run[-1].rows == group.offset
        if follows and sum(item.rows for item in run) + group.rows <= rows:
            run.append(group)
        else:
            runs.append([group])
    for run in runs:
        file = files.files[run[0].file]
        span = int(run[0].offset - starts[run[0].file]), sum(item.rows for item in run)
        yield _scan_files([file], files.source, types, unit, between, span)
    if not runs:
        yield _scan_files([files.files[0]], files.source, types, unit, between, (0, 0))


def groups_between(files: SourceFiles, between: tuple[int, int], unit: Unit) -> list[RowGroup]:
    """The row groups that may hold an event of a closed range of event times."""
    (event, *_), (first, last) = _time_columns(files.source), between
    bounds = ((group, files.bounds(group, event, unit)) for group in files.row_groups)
    return [group for group, (least, greatest) in bounds if least <= last and greatest >= first]


def _within(files: SourceFiles, between: tuple[int, int], unit: Unit) -> tuple[DataFile, ...]:
    """The files that may hold an event of this range; at least one, for its columns."""
    wanted = {group.file for group in groups_between(files, between, unit)}
    return tuple(files.files[number] for number in sorted(wanted)) or files.files[:1]


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


def _scan_files(
    files: list[DataFile],
    source: Source,
    types: Mapping[str, ValueType],
    unit: Unit,
    between: tuple[int, int] | None,
    rows: tuple[int, int] | None = None,
) -> pl.LazyFrame:
    """Some files that are alike, or of one file some `rows`: the first and how many."""
    partition = files[0].partition
    mapping = dict(source.field_mapping)
    event = _time_columns(source)[0]
    frame = _lazy(files)
    if rows is not None:
        frame = frame.slice(*rows)
    if between is not None:
        stored = next((name for name in files[0].schema.names if mapping.get(name, name) == event), event)
        frame = _narrowed(frame, stored, between, unit)
    frame = frame.with_columns(
        _constant(name, value, types.get(mapping.get(name, name)), source) for name, value in partition.items()
    )
    names = {stored: defined for stored, defined in mapping.items() if stored in {*files[0].schema.names, *partition}}
    frame = frame.rename(names)
    times = set(_time_columns(source))
    schema = frame.collect_schema()
    units: dict[str, Unit] = {name: unit if name in times else "us" for name in schema}
    return frame.with_columns(
        _to_utc(name, dtype, units[name])
        for name, dtype in schema.items()
        if dtype != pl.Datetime(units[name], "UTC")
        and (isinstance(dtype, pl.Datetime) or (name in times and dtype in (pl.Date, pl.String)))
    )


def _narrowed(frame: pl.LazyFrame, stored: str, between: tuple[int, int], unit: Unit) -> pl.LazyFrame:
    """Only rows in a range of the stored time, said in its own type: only so does the reader look at statistics."""
    dtype = frame.collect_schema().get(stored)
    if not isinstance(dtype, pl.Datetime):
        return frame
    wanted, given = _PER_SECOND[dtype.time_unit], _PER_SECOND[unit]
    bounds = (min(max(int(bound) * wanted // given, _LEAST), _GREATEST) for bound in between)
    first, last = (pl.lit(bound, pl.Int64).cast(dtype) for bound in bounds)
    return frame.filter(pl.col(stored).is_between(first, last))


def _lazy(files: list[DataFile]) -> pl.LazyFrame:
    if files[0].filesystem is None and not has_foreign_zone(files[0].schema):
        return pl.scan_parquet([file.path for file in files], hive_partitioning=False, glob=False)
    tables = [file.open().read() for file in files]
    return pl.DataFrame(pl.from_arrow(in_known_zones(pa.concat_tables(tables)))).lazy()


def _constant(name: str, value: str | None, dtype: ValueType | None, source: Source) -> pl.Expr:
    wanted = None if dtype is None else dtype.polars()
    if dtype is ValueType.BOOL:
        text = pl.Series(name, [value], dtype=pl.String)
        flag = cast_column(text, dtype, pl.Boolean(), where=f"source {source.name!r}, said by a folder,")
        return pl.lit(flag[0], pl.Boolean).alias(name)
    literal = pl.lit(value, pl.String)
    return (literal if wanted is None else literal.cast(wanted)).alias(name)


def _to_utc(name: str, dtype: pl.DataType, unit: Unit) -> pl.Expr:
    """An instant in UTC, in a unit. What does not fit into nanoseconds stays at the end of their range."""
    column = pl.col(name)
    if dtype == pl.String:
        return column.map_batches(partial(_parse, unit=unit), return_dtype=pl.Datetime(unit, "UTC"))
    if dtype == pl.Date:
        column, dtype = column.cast(pl.Datetime("us")), pl.Datetime("us")
    assert isinstance(dtype, pl.Datetime)  # noqa: S101 - the caller chose the column by its type
    if unit == "ns" and dtype.time_unit != "ns":
        step = _PER_SECOND["ns"] // _PER_SECOND[dtype.time_unit]
        ticks = column.to_physical().clip(_LEAST // step + 1, _GREATEST // step) * step
        return ticks.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC").alias(name)
    column = column.dt.cast_time_unit(unit)
    return column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column.dt.convert_time_zone("UTC")


def _parse(texts: pl.Series, *, unit: Unit) -> pl.Series:
    instants = to_instants(texts.to_arrow(compat_level=pl.CompatLevel.oldest()), unit, null=NEVER)
    series = pl.Series(texts.name, instants)
    return pl.select(pl.when(series != NEVER).then(series).cast(pl.Datetime(unit, "UTC")).alias(texts.name)).to_series()


def as_datetimes(instants: np.ndarray, *, name: str, unit: str = "us") -> pl.Series:
    """Instants as a UTC column in microseconds; NEVER becomes null."""
    values = instants if unit == "us" else np.where(instants == NEVER, NEVER, instants // 1_000)
    series = pl.Series(name, values)
    return pl.select(pl.when(series != NEVER).then(series).cast(UTC_MICROS).alias(name)).to_series()
