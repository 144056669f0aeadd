"""Adding rows to a source: a new file, complete before it can be seen. What is there is never written again."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from tidemill.definitions.catalog import Source
from tidemill.errors import InputError, SourceError
from tidemill.offline.families import family
from tidemill.offline.files import SourceFiles
from tidemill.offline.layout import write_rows
from tidemill.offline.listing import APPENDED, parquet_files, resolve

_HIDDEN = "."


def append_rows(
    source: Source, root: Path, frame: pl.DataFrame, *, name: str | None = None, keys: Sequence[str] = ()
) -> Path:
    """Write a frame, in the names of the definitions, as a new file of the source; returns where.

    A large frame is clustered by `keys`, the join keys of the views that read the source; see `layout`.

    With a `name` the file is written once and replaced if it is written again, so that a repeated extraction changes
    nothing. A source that is a single file gets its further rows in a folder beside it, `<file>.d`. A folder with hive
    partitions gets one file in each partition the frame has rows of.

    Raises InputError where the frame lacks a column of the source or holds another type; nothing is written then.
    """
    if source.file_format == "delta":
        raise SourceError(f"Source {source.name!r} is a Delta table.", hint="Write to it with a Delta writer.")
    where = resolve(source.path, root)
    if "://" in where:
        raise SourceError(f"Source {source.name!r} at {where} is remote.", hint="Write to it where it is made.")
    folder = _folder(Path(where))
    present = SourceFiles.open(source, root) if Path(where).exists() or folder.is_dir() else None
    stored = _stored(source, frame)
    if present is not None and present.files:
        stored = _like(stored, present)
        partitions = list(present.files[0].partition)
    else:
        stored, partitions = _as_records(stored), []
    back = {defined: stored for stored, defined in source.field_mapping}
    clustered = [back.get(key, key) for key in keys]
    clustered = clustered if set(clustered) <= set(stored.columns) else []

    def write(file: Path, rows: pl.DataFrame) -> None:
        write_rows(rows, file, keys=[key for key in clustered if key in rows.columns], time=source.timestamp_field)

    file = name or _next_name(folder)
    file = file if file.endswith(".parquet") else f"{file}.parquet"
    parts = [(folder / part / file, rows) for part, rows in _by_partition(stored, partitions)]
    _write(parts, write)
    return parts[0][0] if len(parts) == 1 else folder


def find_appended(source: Source, root: Path, name: str) -> Path | None:
    """The file that was added under `name`, or None."""
    where = resolve(source.path, root)
    if source.file_format == "delta" or "://" in where:
        return None
    folder = _folder(Path(where))
    return next(iter(sorted(folder.rglob(f"{name}.parquet"))), None) if folder.is_dir() else None


def _folder(where: Path) -> Path:
    """Where further files go: a source that is one file, or will be, has a folder for them beside it."""
    single = where.is_file() or (not where.exists() and where.suffix in {".parquet", ".pq"})
    return where.with_name(where.name + APPENDED) if single else where


def _stored(source: Source, frame: pl.DataFrame) -> pl.DataFrame:
    back = {defined: stored for stored, defined in source.field_mapping if defined in frame.columns}
    return frame.rename(back)


def _like(frame: pl.DataFrame, present: SourceFiles) -> pl.DataFrame:
    """The frame with the source's columns, in its order and types."""
    file = present.files[0]
    wanted = pl.DataFrame(pl.from_arrow(file.schema.empty_table())).schema
    needed = [*wanted, *file.partition]
    missing = [name for name in needed if name not in frame.columns]
    extra = [name for name in frame.columns if name not in needed]
    if missing or extra:
        raise InputError(
            f"Rows for source {present.source.name!r} "
            + " and ".join(
                text
                for text, names in (
                    ("lack " + ", ".join(missing), missing),
                    ("have unknown " + ", ".join(extra), extra),
                )
                if names
            )
            + ".",
            hint=f"The source's columns are: {', '.join(needed)}.",
        )
    return frame.select(
        [_cast(frame[name], dtype, file.schema.field(name).type, present.source) for name, dtype in wanted.items()]
        + [frame[name] for name in file.partition]
    )


def _cast(series: pl.Series, dtype: pl.DataType, stored: pa.DataType, source: Source) -> pl.Series:
    if series.dtype == dtype:
        return series
    if series.dtype == pl.Object:
        return _of_objects(series, dtype, source)
    given = series.to_arrow(compat_level=pl.CompatLevel.oldest()).type
    if family(given) not in {family(stored), "null"}:
        raise InputError(
            f"Column {series.name!r} for source {source.name!r} is {series.dtype}, but the source holds {dtype}.",
            hint="Give the source's type.",
        )
    try:
        if isinstance(dtype, pl.Datetime) and isinstance(series.dtype, pl.Datetime):
            series = series.dt.replace_time_zone("UTC") if series.dtype.time_zone is None else series
            zoned = series.dt.convert_time_zone(dtype.time_zone or "UTC").dt.cast_time_unit(dtype.time_unit)
            return zoned if dtype.time_zone else zoned.dt.replace_time_zone(None)
        cast = series.cast(dtype)
        if (
            series.dtype.is_float()
            and dtype.is_integer()
            and not series.equals(cast.cast(series.dtype), null_equal=True)
        ):
            raise InputError(f"Column {series.name!r} for source {source.name!r} holds fractions; the source {dtype}.")
        return cast
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"Column {series.name!r} for source {source.name!r} does not fit {dtype}: {str(error).splitlines()[0]}."
        ) from None


def _of_objects(series: pl.Series, dtype: pl.DataType, source: Source) -> pl.Series:
    """Maps that are unlike each other, in the type of the source. A record has null for the fields that a map lacks."""
    values = series.to_list()
    try:
        cast = pl.Series(series.name, values, dtype=dtype)
        if all(map(_is_within, values, cast.to_list())):
            return cast
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        pass
    raise InputError(
        f"Column {series.name!r} for source {source.name!r} holds maps that do not fit {dtype}.",
        hint="Give the fields and types that the source has.",
    )


def _is_within(given: Any, stored: Any) -> bool:
    """Whether what was given is stored, possibly beside fields that are null."""
    if isinstance(given, dict):
        return isinstance(stored, dict) and all(_is_within(given.get(name), stored.get(name)) for name in given)
    if isinstance(given, list):
        return isinstance(stored, list) and len(given) == len(stored) and all(map(_is_within, given, stored))
    return given == stored or (given != given and stored != stored)


def _as_records(frame: pl.DataFrame) -> pl.DataFrame:
    """Maps as records with the fields of all of them, where no source says what else they should be."""
    objects = [name for name, dtype in frame.schema.items() if dtype == pl.Object]
    return frame.with_columns(_records(frame[name]) for name in objects) if objects else frame


def _records(series: pl.Series) -> pl.Series:
    rows = [{series.name: value} for value in series]
    try:
        return pl.DataFrame(rows, infer_schema_length=None)[series.name]
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"The maps of column {series.name!r} cannot be stored together: {error}.") from None


def _by_partition(frame: pl.DataFrame, partitions: list[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    if not partitions:
        yield "", frame
        return
    for values, rows in frame.group_by(partitions, maintain_order=True):
        parts = (f"{name}={value}" for name, value in zip(partitions, values, strict=True))
        yield "/".join(parts), rows.drop(partitions)


def _next_name(folder: Path) -> str:
    """Names rise, so that rows appended later have later positions."""
    numbers = [_number(path.name) for path in parquet_files(folder)] if folder.is_dir() else []
    return f"part-{max(numbers, default=0) + 1:010d}-{uuid.uuid4().hex[:8]}.parquet"


def _number(name: str) -> int:
    digits = name.removeprefix("part-").split("-")[0].split(".")[0]
    return int(digits) if name.startswith("part-") and digits.isdigit() else 0


def _write(parts: Sequence[tuple[Path, pl.DataFrame]], write: Callable[[Path, pl.DataFrame], None]) -> None:
    """Write files under hidden names, and give them their own once all are complete; none appears if one fails."""
    fresh = [file.with_name(f"{_HIDDEN}{file.name}.{os.getpid()}.tmp") for file, _ in parts]
    try:
        for unfinished, (_, rows) in zip(fresh, parts, strict=True):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            write(unfinished, rows)
            _sync(unfinished)
        for unfinished, (file, _) in zip(fresh, parts, strict=True):
            unfinished.replace(file)
    except OSError as error:
        raise SourceError(
            f"{parts[0][0]} cannot be written: {error.strerror or error}.", hint="Nothing was added."
        ) from error
    finally:
        for unfinished in fresh:
            unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def as_frame(found: Any) -> pl.DataFrame:
    """Rows as Polars, from Polars, pandas, Arrow or a list of dicts. Raises InputError for anything else."""
    if isinstance(found, pl.DataFrame):
        return found
    if isinstance(found, pl.LazyFrame):
        return found.collect()
    try:
        if isinstance(found, pa.Table | pa.RecordBatch):
            return pl.DataFrame(pl.from_arrow(found))
        if type(found).__module__.split(".")[0] == "pandas":
            return pl.DataFrame(pl.from_pandas(found))
        return pl.DataFrame(found)
    except (TypeError, ValueError, pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise InputError(f"A {type(found).__name__} cannot be read as rows: {error}.") from None
