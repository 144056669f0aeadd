"""One Parquet file: its footer, what its statistics say, and reading some of its row groups.

A footer is read once while its file stays what it is: a schedule opens the same files every hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from tidemill.clock import is_settled
from tidemill.definitions.catalog import Source
from tidemill.errors import SourceError
from tidemill.offline.blocks import blocks_of
from tidemill.offline.families import family
from tidemill.offline.instants import FOREVER, NEVER, Unit
from tidemill.offline.listing import Listed
from tidemill.offline.plain_pages import PlainPages, can_lie_plain, plain_pages
from tidemill.offline.taking import taken

_Version = tuple[int, int, int]
_MOST_REMEMBERED = 20_000
"""Footers; a few kilobytes each."""


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What a file says about itself, and what was found out from it. `version` is None where it cannot be told."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    version: _Version | None = None
    bounds: dict[tuple[int, str, Unit], tuple[int, int]] = field(default_factory=dict, compare=False)
    """What statistics were found to say, by row group, stored column and unit."""
    plain: dict[tuple[int, str], PlainPages | None] = field(default_factory=dict, compare=False)
    """Where values lie that need no decoding, by row group and stored column."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One Parquet file: where it lies, what its folders' names say (hive partitions), and its footer."""

    path: str
    name: str
    partition: Mapping[str, str | None]
    footer: Footer
    filesystem: pafs.FileSystem | None = field(default=None, compare=False)

    @classmethod
    def opened(cls, listed: Listed, source: Source) -> DataFile:
        """Its footer is read, its data is not. Raises SourceError for what is no Parquet file."""
        read = _local_footer if listed.filesystem is None else _footer
        return cls(
            path=listed.path,
            name=listed.name,
            partition=listed.partition,
            footer=read(listed, source),
            filesystem=listed.filesystem,
        )

    @property
    def metadata(self) -> pq.FileMetaData:
        return self.footer.metadata

    @property
    def schema(self) -> pa.Schema:
        return self.footer.schema

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each flat column among the file's leaves."""
        schema = self.metadata.schema
        return {schema.column(place).path: place for place in range(len(schema))}

    def statistics(self, group: int, stored: str) -> pq.Statistics | None:
        """What a row group says about a column's least and greatest value; None where it does not say."""
        place = self.places.get(stored)
        found = None if place is None else self.metadata.row_group(group).column(place).statistics
        return found if found is not None and found.has_min_max else None

    def bounds(self, group: int, stored: str, unit: Unit) -> tuple[int, int]:
        """The least and greatest instant of a column in a row group by its statistics; endless without any."""
        wanted = group, stored, unit
        if wanted not in self.footer.bounds:
            self.footer.bounds[wanted] = self._bounds(*wanted)
        return self.footer.bounds[wanted]

    def open(self, *, dictionary: Sequence[str] = ()) -> pq.ParquetFile:
        where: Any = self.path if self.filesystem is None else self.filesystem.open_input_file(self.path)
        return pq.ParquetFile(where, metadata=self.metadata, read_dictionary=list(dictionary), pre_buffer=False)

    def read(self, groups: Sequence[int], columns: Sequence[str], *, dictionary: Sequence[str] = ()) -> pa.Table:
        """Stored columns of some row groups, in order; text of `dictionary` columns stays encoded as it is stored.

        Raises OSError or ArrowException where the file is damaged, OSError where it is no longer what was opened.
        """
        found = self._read_plain(groups, columns)
        others = [name for name in columns if name not in found]
        if others:
            encoded = [name for name in dictionary if name in others and _is_words(self.schema.field(name).type)]
            table = self.open(dictionary=encoded).read_row_groups(list(groups), columns=others, use_threads=False)
            found |= {name: table.column(name) for name in others}
        if self.has_changed():
            raise OSError("the file has changed while it was read")
        return pa.table([found[name] for name in columns], names=list(columns))

    def has_changed(self) -> bool:
        """Whether a local file has been replaced, or is gone, since its footer was read."""
        if self.footer.version is None:
            return False
        try:
            return _version(os.stat(self.path)) != self.footer.version  # noqa: PTH116 - as `_local_footer` does
        except OSError:
            return True

    def _read_plain(self, groups: Sequence[int], columns: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Those of the columns whose values lie in the file as they are in memory."""
        found: dict[str, pa.ChunkedArray] = {}
        with self.as_it_lies() as lying:
            for name in columns:
                pages = [lying.pages(group, name) for group in groups] if lying is not None else []
                whole = [page for page in pages if page is not None]
                if lying is not None and whole and len(whole) == len(pages):
                    found[name] = lying.column(whole, self.schema.field(name).type)
        return found

    def take_as_they_lie(
        self, group: int, columns: Iterable[str], rows: npt.NDArray[np.integer[Any]]
    ) -> Iterator[tuple[str, slice, npt.NDArray[Any]]]:
        """Some rows of those columns of a row group that need no decoding, block by block: (column, rows, values).

        Only what lies between the rows is read. Raises OSError where the file is damaged or has changed meanwhile.
        """
        with self.as_it_lies() as lying:
            found = {} if lying is None else {name: lying.pages(group, name) for name in columns}
            pages = {name: whole for name, whole in found.items() if whole is not None}
            if lying is None or not pages:
                return
            blocks = blocks_of(rows)
            dtypes = {name: _as_numpy(self.schema.field(name).type) for name in pages}
            room = np.empty(max(block.end - block.first for block in blocks), np.int64)
            for block in blocks:
                places = rows[block.wanted] - block.first
                for name, whole in pages.items():
                    values = room.view(dtypes[name])[: block.end - block.first]
                    whole.read_into(lying.descriptor, values.data.cast("B"), first=block.first)
                    yield name, block.wanted, taken(values, places)

    @contextmanager
    def as_it_lies(self) -> Iterator[_Opened | None]:
        """The file, open for reading values that need no decoding; None where it is not one of this machine's.

        Raises OSError at the end where the file has changed meanwhile.
        """
        if self.footer.version is None or not self._simple:
            yield None
            return
        with _descriptor(self.path) as opened:
            yield _Opened(descriptor=opened, pages=partial(self._pages, opened))
            if _version(os.fstat(opened)) != self.footer.version:
                raise OSError("the file has changed while it was read")

    @cached_property
    def _simple(self) -> frozenset[str]:
        """Columns whose pages may hold nothing but their values."""
        leaves = self.metadata.schema
        return frozenset(
            field.name
            for field in self.schema
            if field.name in self.places
            and "." not in field.name  # which may be that of a struct's field
            and can_lie_plain(field.type, leaves.column(self.places[field.name]))
        )

    def _pages(self, opened: int, group: int, name: str) -> PlainPages | None:
        if name not in self._simple:
            return None
        wanted = group, name
        if wanted not in self.footer.plain:
            place = self.places[name]
            chunk = self.metadata.row_group(group).column(place)
            leaf = self.metadata.schema.column(place)
            self.footer.plain[wanted] = plain_pages(opened, chunk, leaf, self.schema.field(name).type)
        return self.footer.plain[wanted]

    def _bounds(self, group: int, stored: str, unit: Unit) -> tuple[int, int]:
        statistics = self.statistics(group, stored)
        if statistics is None or not pa.types.is_timestamp(self.schema.field(stored).type):
            return NEVER, FOREVER
        if not isinstance(statistics.min_raw, int):
            return NEVER, FOREVER
        return _in_unit(statistics.min_raw, statistics, unit), _in_unit(statistics.max_raw, statistics, unit)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """An open file; `pages` tells where the values of a column of a row group lie, None where they are encoded."""

    descriptor: int
    pages: Callable[[int, str], PlainPages | None]

    def column(self, pages: Sequence[PlainPages], dtype: pa.DataType) -> pa.ChunkedArray:
        """The values of a column in one or more row groups, as one chunk in memory that Arrow keeps and uses again."""
        buffer = pa.allocate_buffer(sum(page.size for page in pages))
        room, start = memoryview(buffer), 0
        for page in pages:
            page.read_into(self.descriptor, room[start : start + page.size])
            start += page.size
        rows = sum(page.rows for page in pages)
        return pa.chunked_array([pa.Array.from_buffers(dtype, rows, [None, buffer])])


def _as_numpy(dtype: pa.DataType) -> np.dtype[Any]:
    """How values that need no decoding lie in memory; instants as whole numbers."""
    return np.dtype(f"{'f' if pa.types.is_floating(dtype) else 'i'}{dtype.bit_width // 8}")


@contextmanager
def _descriptor(path: str) -> Iterator[int]:
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        yield opened
    finally:
        os.close(opened)


def _version(stat: os.stat_result) -> _Version:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _local_footer(listed: Listed, source: Source) -> Footer:
    """A local file's footer, remembered while the file stays what it is."""
    try:
        stat = os.stat(listed.path)  # noqa: PTH116 - thousands of files, and half the cost of Path.stat
    except OSError:
        return _footer(listed, source)
    version = _version(stat)
    with _REMEMBERING:
        remembered = _REMEMBERED.get(listed.path)
    if remembered is not None and remembered.version == version:
        return remembered
    found = _footer(listed, source, version)
    if not is_settled(stat):
        return found
    with _REMEMBERING:
        while len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        _REMEMBERED[listed.path] = found
    return found


def _footer(listed: Listed, source: Source, version: _Version | None = None) -> Footer:
    try:
        where: Any = listed.path if listed.filesystem is None else listed.filesystem.open_input_file(listed.path)
        with pq.ParquetFile(where) as opened:
            return Footer(metadata=opened.metadata, schema=_shared(opened.schema_arrow), version=version)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{listed.name} of source {source.name!r} is not a readable Parquet file: {error}.",
            hint="The file is corrupt or was cut off; write it again or take it away.",
        ) from error


def _shared(schema: pa.Schema) -> pa.Schema:
    """One object for equal schemas, so that files of one shape are known by identity."""
    with _REMEMBERING:
        if len(_SCHEMAS) >= _MOST_REMEMBERED:
            _SCHEMAS.clear()
        return _SCHEMAS.setdefault(schema.serialize().to_pybytes(), schema)


_REMEMBERED: dict[str, Footer] = {}
_SCHEMAS: dict[bytes, pa.Schema] = {}
_REMEMBERING = Lock()


def _is_words(dtype: pa.DataType) -> bool:
    return family(dtype) in {"text", "bytes"}


def _in_unit(raw: int, statistics: pq.Statistics, unit: Unit) -> int:
    """A raw statistic by its own logical type (a file may be read as another unit than it is stored in)."""
    logical = str(statistics.logical_type)
    scale = 1_000 if "milliseconds" in logical else 1_000_000_000 if "nanoseconds" in logical else 1_000_000
    wanted = 1_000_000_000 if unit == "ns" else 1_000_000
    return raw * wanted // scale
