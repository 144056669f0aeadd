"""A source as files and row groups: what is where, what its statistics say, and reading just that.

Positions count rows through the whole source: files in the order of their paths, row groups and rows in file order.
The last position breaks ties between equal times, so this order is part of what a source means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from tidemill.definitions.catalog import Source
from tidemill.errors import SourceError
from tidemill.offline.instants import FOREVER, NEVER, Unit, unit_of

_PARTITION = re.compile(r"([^/=]+)=([^/]*)")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
APPENDED = ".d"
"""A source that is one file keeps what is appended to it in a folder of the same name with this suffix."""


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """A row group of a source: `offset` is the position of its first row; times are its events' bounds."""

    file: int
    index: int
    rows: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One Parquet file: where it lies, what its folders' names say (hive partitions), and its footer."""

    path: str
    name: str
    partition: Mapping[str, str | None]
    metadata: pq.FileMetaData
    schema: pa.Schema
    filesystem: pafs.FileSystem | None = field(default=None, compare=False)
    bounds: dict[tuple[int, str, Unit], tuple[int, int]] = field(default_factory=dict, compare=False)
    """What statistics were found to say, by row group, stored column and unit; kept with the footer."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each flat column among the file's leaves."""
        schema = self.metadata.schema
        return {schema.column(place).path: place for place in range(len(schema))}

    def open(self, *, dictionary: Sequence[str] = ()) -> pq.ParquetFile:
        where: Any = self.path if self.filesystem is None else self.filesystem.open_input_file(self.path)
        return pq.ParquetFile(where, metadata=self.metadata, read_dictionary=list(dictionary), pre_buffer=False)


class SourceFiles:
    """The files of one source, opened once: footers are read, data is not.

    Raises SourceError where the path is missing, a file is corrupt, or a folder holds no Parquet file.
    """

    def __init__(self, source: Source, files: Sequence[DataFile], *, where: str) -> None:
        self.source = source
        self.where = where
        self.files = tuple(files)
        self._in_file = {defined: stored for stored, defined in source.field_mapping}

    @classmethod
    def open(cls, source: Source, root: Path) -> SourceFiles:
        where = resolve(source.path, root)
        listed = _list_delta(where, source) if source.file_format == "delta" else _list_parquet(where, source)
        return cls(
            source, [_open(path, name, partition, fs, source) for path, name, partition, fs in listed], where=where
        )

    @cached_property
    def row_groups(self) -> tuple[RowGroup, ...]:
        found, offset = [], 0
        for number, file in enumerate(self.files):
            for index in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(index).num_rows
                if rows:
                    found.append(RowGroup(file=number, index=index, rows=rows, offset=offset))
                offset += rows
        return tuple(found)

    @property
    def rows(self) -> int:
        return sum(file.metadata.num_rows for file in self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns under their names in the definitions."""
        if not self.files:
            return ()
        mapping = dict(self.source.field_mapping)
        stored: list[str] = [*self.files[0].schema.names, *self.files[0].partition]
        return tuple(dict.fromkeys(mapping.get(name, name) for name in stored))

    def stored_name(self, column: str, file: DataFile) -> str:
        """A defined column's name in the file: the mapped name, or its own where that is what the file holds."""
        mapped = self._in_file.get(column, column)
        return mapped if mapped in file.partition or mapped in file.schema.names else column

    def type_of(self, column: str) -> pa.DataType:
        """The column's type in the first file that has rows of it; text for a hive partition."""
        found: pa.DataType = pa.null()
        for file in self.files:
            name = self.stored_name(column, file)
            found = pa.string() if name in file.partition else file.schema.field(name).type
            if not pa.types.is_null(found):
                break
        return found

    def types_of(self, column: str) -> set[pa.DataType]:
        """The column's types in all files; text for a hive partition."""
        names = ((file, self.stored_name(column, file)) for file in self._shapes)
        return {pa.string() if name in file.partition else file.schema.field(name).type for file, name in names}

    def unit_of(self, column: str) -> Unit:
        units = {
            unit_of(file.schema.field(name).type)
            for file in self._shapes
            if (name := self.stored_name(column, file)) in file.schema.names
        }
        return "ns" if "ns" in units else "us"

    def require(self, columns: Iterable[str]) -> None:
        """Raise SourceError unless every file has these columns, each of one family of types in all files."""
        for column in columns:
            first: tuple[str, str, str] | None = None
            for file in self._shapes:
                name = self.stored_name(column, file)
                if name not in file.partition and name not in file.schema.names:
                    raise SourceError(
                        f"{file.name} of source {self.source.name!r} has no column {name!r}; "
                        f"it has {', '.join(file.schema.names)}.",
                        hint="Write the file again with the column, or map its name with `field_mapping`.",
                    )
                dtype = pa.string() if name in file.partition else file.schema.field(name).type
                kind = family(dtype)
                if kind == "null":
                    continue
                if first is not None and first[0] != kind:
                    raise SourceError(
                        f"Column {name!r} of source {self.source.name!r} is {first[1]} in {first[2]} "
                        f"but {dtype} in {file.name}.",
                        hint="Write one of the files again; all files of a source must agree.",
                    )
                first = first or (kind, str(dtype), file.name)

    @cached_property
    def _shapes(self) -> tuple[DataFile, ...]:
        """The first file of each schema: what holds for it holds for all that share it, and most sources have one."""
        shapes: dict[tuple[int, tuple[str, ...]], DataFile] = {}
        for file in self.files:
            shapes.setdefault((id(file.schema), tuple(file.partition)), file)
        return tuple(shapes.values())

    def bounds(self, group: RowGroup, column: str, unit: Unit) -> tuple[int, int]:
        """The least and greatest instant of a column in a row group by its statistics; endless without any."""
        file = self.files[group.file]
        wanted = group.index, self.stored_name(column, file), unit
        if wanted not in file.bounds:
            file.bounds[wanted] = _bounds_of(file, *wanted)
        return file.bounds[wanted]

    def key_bounds(self, group: RowGroup, column: str) -> tuple[Any, Any] | None:
        """The least and greatest whole number or text of a column in a row group by its statistics; None without."""
        file = self.files[group.file]
        name = self.stored_name(column, file)
        place = file.places.get(name)
        statistics = None if place is None else file.metadata.row_group(group.index).column(place).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        dtype = file.schema.field(name).type
        if not pa.types.is_signed_integer(dtype) and family(dtype) != "text":
            return None
        least, greatest = statistics.min, statistics.max
        return (least, greatest) if isinstance(least, int | str) and isinstance(greatest, int | str) else None

    def read(self, groups: Sequence[RowGroup], columns: Sequence[str], *, dictionary: Sequence[str] = ()) -> pa.Table:
        """The columns of some row groups of one or more files, in order, under their defined names."""
        parts: list[pa.Table] = []
        for number, run in _runs(groups):
            parts.append(self._read_file(self.files[number], [group.index for group in run], columns, dictionary))
        if len(parts) == 1:
            return parts[0]
        return pa.concat_tables(parts, promote_options="permissive")

    def check_readable(self, columns: Sequence[str] | None = None) -> None:
        """Read everything, or some columns, to find out which file is damaged. Raises SourceError naming it."""
        for group in self.row_groups:
            self.read([group], self.columns if columns is None else columns)

    def _read_file(
        self, file: DataFile, indices: list[int], columns: Sequence[str], dictionary: Sequence[str]
    ) -> pa.Table:
        names = {column: self.stored_name(column, file) for column in columns}
        stored = list(dict.fromkeys(name for name in names.values() if name not in file.partition))
        encoded = [
            names[column]
            for column in dictionary
            if names[column] in stored and family(file.schema.field(names[column]).type) in {"text", "bytes"}
        ]
        rows = sum(file.metadata.row_group(index).num_rows for index in indices)
        try:
            table = file.open(dictionary=encoded).read_row_groups(indices, columns=stored, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{file.name} of source {self.source.name!r} cannot be read: {error}.",
                hint="The file is corrupt or was cut off; write it again.",
            ) from error
        arrays = [
            pa.chunked_array([pa.repeat(pa.scalar(file.partition[name], pa.string()), rows)])
            if name in file.partition
            else table.column(name)
            for name in names.values()
        ]
        return pa.table(arrays, names=list(names))


def _bounds_of(file: DataFile, index: int, stored: str, unit: Unit) -> tuple[int, int]:
    place = file.places.get(stored)
    statistics = None if place is None else file.metadata.row_group(index).column(place).statistics
    if statistics is None or not statistics.has_min_max:
        return NEVER, FOREVER
    if not pa.types.is_timestamp(file.schema.field(stored).type) or not isinstance(statistics.min_raw, int):
        return NEVER, FOREVER
    return _in_unit(statistics.min_raw, statistics, unit), _in_unit(statistics.max_raw, statistics, unit)


def resolve(path: str, root: Path) -> str:
    """A source's path: absolute and URLs as they are, anything else relative to the project's folder."""
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://"))
    return path if "://" in path else str(root / path)


def family(dtype: pa.DataType) -> str:
    """What kind of thing a type holds; widths and time units do not matter."""
    if pa.types.is_dictionary(dtype):
        return family(dtype.value_type)
    checks = {
        "null": pa.types.is_null,
        "boolean": pa.types.is_boolean,
        "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t),
        "decimal": pa.types.is_decimal,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
        "bytes": lambda t: (
            pa.types.is_binary(t)
            or pa.types.is_large_binary(t)
            or pa.types.is_binary_view(t)
            or pa.types.is_fixed_size_binary(t)
        ),
        "instant": lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t),
        "struct": pa.types.is_struct,
        "map": pa.types.is_map,
    }
    for name, holds in checks.items():
        if holds(dtype):
            return name
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return f"list of {family(dtype.value_type)}"
    return str(dtype)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files below a folder in path order; names starting with a dot or underscore are hidden."""
    return [folder / name for name in _parquet_names(folder)]


def _parquet_names(folder: Path) -> list[str]:
    """Their paths below the folder, as texts: thousands of Path objects would take longer than the files."""
    names: list[str] = []
    for place, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if name[0] not in "._"]
        below = os.path.relpath(place, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        names += [prefix + name for name in files if name[0] not in "._" and name.endswith((".parquet", ".pq"))]
    return sorted(names)


_Listed = tuple[str, str, dict[str, str | None], pafs.FileSystem | None]


def _list_parquet(where: str, source: Source) -> list[_Listed]:
    if "://" in where:
        return _list_remote(where, source)
    path = Path(where)
    beside = path.with_name(path.name + APPENDED)
    if path.is_file() or (beside.is_dir() and not path.exists()):
        found = [path] if path.exists() else []
        more = parquet_files(beside) if beside.is_dir() else []
        return [(str(file), file.name, {}, None) for file in [*found, *more]]
    if path.is_dir():
        return [(f"{where}/{name}", name, _partition(name), None) for name in _parquet_names(path)]
    raise SourceError(
        f"Source {source.name!r} is not there: {where} is neither a file nor a folder.",
        hint="Run `tidemill extract`, or correct the source's path (relative ones start at the project's folder).",
    )


def _list_remote(where: str, source: Source) -> list[_Listed]:
    try:
        filesystem, path = pafs.FileSystem.from_uri(where)
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [(path, Path(path).name, {}, filesystem)]
        listed = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"Source {source.name!r} at {where} cannot be listed: {error}.") from error
    names = sorted(
        item.path.removeprefix(path).lstrip("/")
        for item in listed
        if item.type == pafs.FileType.File and item.extension in {"parquet", "pq"}
    )
    return [(f"{path}/{name}", name, _partition(name), filesystem) for name in names if not _hidden(name)]


def _list_delta(where: str, source: Source) -> list[_Listed]:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise SourceError(
            f"Source {source.name!r} is a Delta table, which needs the `delta` extra.",
            hint="Install it: pip install 'tidemill[delta]'.",
        ) from error
    try:
        table = DeltaTable(where)
    except (DeltaError, OSError) as error:
        raise SourceError(f"Source {source.name!r} at {where} is not a readable Delta table: {error}.") from error
    features = set(table.protocol().reader_features or ())
    if features & {"deletionVectors", "columnMapping"}:
        raise SourceError(
            f"Delta table {where} of source {source.name!r} uses {', '.join(sorted(features))}.",
            hint="Purge its deletion vectors (REORG TABLE ... APPLY (PURGE)) or write a copy without them.",
        )
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    actions.sort(key=lambda action: (action["modification_time"], action["path"]))
    filesystem, base = pafs.FileSystem.from_uri(where) if "://" in where else (None, where)
    return [
        (
            f"{base}/{unquote(action['path'])}",
            unquote(action["path"]),
            {
                name.removeprefix("partition."): None if value is None else str(value)
                for name, value in action.items()
                if name.startswith("partition.")
            },
            filesystem,
        )
        for action in actions
    ]


def _open(
    path: str, name: str, partition: dict[str, str | None], filesystem: pafs.FileSystem | None, source: Source
) -> DataFile:
    found = _footer(path, name, filesystem, source) if filesystem else _local_footer(path, name, source)
    metadata, schema, bounds = found
    return DataFile(
        path=path,
        name=name,
        partition=partition,
        metadata=metadata,
        schema=schema,
        filesystem=filesystem,
        bounds=bounds,
    )


def _local_footer(path: str, name: str, source: Source) -> _Footer:
    """A local file's footer, read once while the file stays what it is: a schedule opens the same files every hour."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - thousands of files, and half the cost of Path.stat
    except OSError:
        return _footer(path, name, None, source)
    version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    with _REMEMBERING:
        remembered = _REMEMBERED.get(path)
    if remembered is not None and remembered[0] == version:
        return remembered[1]
    found = _footer(path, name, None, source)
    with _REMEMBERING:
        while len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        _REMEMBERED[path] = (version, found)
    return found


def _footer(path: str, name: str, filesystem: pafs.FileSystem | None, source: Source) -> _Footer:
    try:
        where: Any = path if filesystem is None else filesystem.open_input_file(path)
        with pq.ParquetFile(where) as opened:
            return opened.metadata, _shared(opened.schema_arrow), {}
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{name} of source {source.name!r} is not a readable Parquet file: {error}.",
            hint="The file is corrupt or was cut off; write it again or take it away.",
        ) from error


def _shared(schema: pa.Schema) -> pa.Schema:
    """One object for equal schemas, so that files of one shape are known by identity."""
    with _REMEMBERING:
        if len(_SCHEMAS) >= _MOST_REMEMBERED:
            _SCHEMAS.clear()
        return _SCHEMAS.setdefault(schema.serialize().to_pybytes(), schema)


_Footer = tuple[pq.FileMetaData, pa.Schema, dict[tuple[int, str, Unit], tuple[int, int]]]
_MOST_REMEMBERED = 20_000  # footers; a few kilobytes each
_REMEMBERED: dict[str, tuple[tuple[int, int, int], _Footer]] = {}
_SCHEMAS: dict[bytes, pa.Schema] = {}
_REMEMBERING = Lock()


def _partition(name: str) -> dict[str, str | None]:
    folders = name.rpartition("/")[0]
    return {
        unquote(key): None if value == _NULL_PARTITION else unquote(value) for key, value in _PARTITION.findall(folders)
    }


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _runs(groups: Sequence[RowGroup]) -> list[tuple[int, list[RowGroup]]]:
    """Row groups gathered by file, in the order given."""
    runs: list[tuple[int, list[RowGroup]]] = []
    for group in groups:
        if runs and runs[-1][0] == group.file:
            runs[-1][1].append(group)
        else:
            runs.append((group.file, [group]))
    return runs


def _in_unit(raw: int, statistics: pq.Statistics, unit: Unit) -> int:
    """A raw statistic by its own logical type (a file may be read as another unit than it is stored in)."""
    logical = str(statistics.logical_type)
    scale = 1_000 if "milliseconds" in logical else 1_000_000_000 if "nanoseconds" in logical else 1_000_000
    wanted = 1_000_000_000 if unit == "ns" else 1_000_000
    return raw * wanted // scale
