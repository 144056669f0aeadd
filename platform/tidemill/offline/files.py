"""A source as files and row groups: what is where, what its statistics say, and reading just that.

Positions count rows through the whole source: files in the order of their paths, row groups and rows in file order.
The last position breaks ties between equal times, so this order is part of what a source means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidemill.definitions.catalog import Source
from tidemill.errors import SourceError
from tidemill.offline.data_file import DataFile
from tidemill.offline.families import family
from tidemill.offline.instants import Unit, unit_of
from tidemill.offline.listing import list_files, resolve


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """A row group of a source: `offset` is the position of its first row; times are its events' bounds."""

    file: int
    index: int
    rows: int
    offset: int


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
        return cls(source, [DataFile.opened(listed, source) for listed in list_files(source, where)], where=where)

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
            found = self._type_in(column, file)
            if not _is_empty(found):
                break
        return found

    def types_of(self, column: str) -> set[pa.DataType]:
        """The column's types in all files; text for a hive partition."""
        return {self._type_in(column, file) for file in self._shapes}

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
                if name not in file.partition and file.schema.get_field_index(name) < 0:
                    raise SourceError(
                        f"{file.name} of source {self.source.name!r} has several columns named {name!r}.",
                        hint="Write the file again with one of them, or give the others names of their own.",
                    )
                dtype = self._type_in(column, file)
                if _is_empty(dtype):
                    continue
                kind = family(dtype)
                if first is not None and first[0] != kind:
                    raise SourceError(
                        f"Column {name!r} of source {self.source.name!r} is {first[1]} in {first[2]} "
                        f"but {dtype} in {file.name}.",
                        hint="Write one of the files again; all files of a source must agree.",
                    )
                first = first or (kind, str(dtype), file.name)

    def _type_in(self, column: str, file: DataFile) -> pa.DataType:
        """A defined column's type in a file that has it; text for a hive partition."""
        name = self.stored_name(column, file)
        return pa.string() if name in file.partition else file.schema.field(name).type

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
        return file.bounds(group.index, self.stored_name(column, file), unit)

    def key_bounds(self, group: RowGroup, column: str) -> tuple[Any, Any] | None:
        """The least and greatest whole number or text of a column in a row group by its statistics; None without."""
        file = self.files[group.file]
        name = self.stored_name(column, file)
        statistics = file.statistics(group.index, name)
        if statistics is None:
            return None
        dtype = file.schema.field(name).type
        if not pa.types.is_signed_integer(dtype) and family(dtype) != "text":
            return None
        least, greatest = statistics.min, statistics.max
        return (least, greatest) if isinstance(least, int | str) and isinstance(greatest, int | str) else None

    def alike(self, one: RowGroup, other: RowGroup, columns: Iterable[str]) -> bool:
        """Whether these columns are of equal types in two row groups, so that one table can hold both."""
        first, second = self.files[one.file], self.files[other.file]
        if first.schema is second.schema and first.partition.keys() == second.partition.keys():
            return True
        return all(self._type_in(column, first) == self._type_in(column, second) for column in columns)

    def read(self, groups: Sequence[RowGroup], columns: Sequence[str], *, dictionary: Sequence[str] = ()) -> pa.Table:
        """The columns of some row groups, which must be `alike`, in order, under their defined names."""
        parts: list[pa.Table] = []
        for number, run in _runs(groups):
            parts.append(self._read_file(self.files[number], [group.index for group in run], columns, dictionary))
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def take_as_they_lie(
        self, group: RowGroup, columns: Iterable[str], rows: npt.NDArray[np.integer[Any]]
    ) -> Iterator[tuple[str, slice, npt.NDArray[Any]]]:
        """Some rows of those columns of a row group that need no decoding; see `DataFile.take_as_they_lie`."""
        file = self.files[group.file]
        names = {self.stored_name(column, file): column for column in columns}
        with self._naming_damage(file):
            for name, some, values in file.take_as_they_lie(group.index, names, rows):
                yield names[name], some, values

    def check_readable(self, columns: Sequence[str] | None = None) -> None:
        """Read everything, or some columns, to find out which file is damaged. Raises SourceError naming it."""
        for group in self.row_groups:
            self.read([group], self.columns if columns is None else columns)

    def _read_file(
        self, file: DataFile, indices: list[int], columns: Sequence[str], dictionary: Sequence[str]
    ) -> pa.Table:
        names = {column: self.stored_name(column, file) for column in columns}
        stored = list(dict.fromkeys(name for name in names.values() if name not in file.partition))
        rows = sum(file.metadata.row_group(index).num_rows for index in indices)
        with self._naming_damage(file):
            table = file.read(indices, stored, dictionary=[names[column] for column in dictionary])
        arrays = [
            pa.chunked_array([pa.repeat(pa.scalar(file.partition[name], pa.string()), rows)])
            if name in file.partition
            else table.column(name)
            for name in names.values()
        ]
        return pa.table(arrays, names=list(names))

    @contextmanager
    def _naming_damage(self, file: DataFile) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if file.has_changed():
                raise SourceError(
                    f"{file.name} of source {self.source.name!r} was replaced or taken away while it was read.",
                    hint="Run it again; add to a source by new files, so that nothing changes under its readers.",
                ) from error
            raise SourceError(
                f"{file.name} of source {self.source.name!r} cannot be read: {error}.",
                hint="The file is corrupt or was cut off; write it again.",
            ) from error


def _is_empty(dtype: pa.DataType) -> bool:
    """Whether a type says only that no value was there when the file was written."""
    return pa.types.is_null(dtype) or family(dtype) == "list of null"


def _runs(groups: Sequence[RowGroup]) -> list[tuple[int, list[RowGroup]]]:
    """Row groups gathered by file, in the order given."""
    runs: list[tuple[int, list[RowGroup]]] = []
    for group in groups:
        if runs and runs[-1][0] == group.file:
            runs[-1][1].append(group)
        else:
            runs.append((group.file, [group]))
    return runs
