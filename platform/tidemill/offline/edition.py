"""Which edition of a source was read: told by its files, so that it can be seen later whether they are still those."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from tidemill.definitions.catalog import Source
from tidemill.offline.data_file import DataFile
from tidemill.offline.history import History, TimeColumns
from tidemill.offline.instants import to_unit


@dataclass(frozen=True, kw_only=True)
class Edition:
    """The files of a source at one moment, in their order: the least instant at which a row of each may have happened
    and been known (in the source's unit), and what identifies the file."""

    times: TimeColumns
    files: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, source: Source, root: Path) -> Edition | None:
        """None where the files cannot be told from later ones under their names. Raises SourceError."""
        history = History.open(source, root)
        versions = _versions(history.files.files)
        if versions is None:
            return None
        named = zip(_least_instants(history), history.files.files, versions, strict=True)
        files = tuple((least, f"{file.name} {version}") for least, file, version in named)
        return cls(times=history.times, files=files)

    def up_to(self, at: datetime) -> str:
        """Stays what it is for as long as the rows that happened and were known by an instant are the same ones, in
        the same order. Files of later rows may come and go; any other change to files changes it."""
        until = to_unit(at, self.times.unit)
        said = hashlib.sha256(repr((self.times.event, self.times.known)).encode())
        for least, identity in self.files:
            if least <= until:
                said.update(f"\n{identity}".encode())
        return said.hexdigest()[:32]


def _least_instants(history: History) -> list[int]:
    """For each file the instant before which none of its rows had happened and was known, by its statistics."""
    files, times = history.files, history.times
    least: dict[int, int] = {}
    for group in files.row_groups:
        file = files.files[group.file]
        first = files.bounds(group, times.event, times.unit)[0]
        if times.known is not None and _has_no_nulls(file, group.index, files.stored_name(times.known, file)):
            first = max(first, files.bounds(group, times.known, times.unit)[0])
        least[group.file] = min(first, least.get(group.file, first))
    # A file without a row matters to nobody, whenever it comes.
    return [least.get(number, _NO_ROW) for number in range(len(files.files))]


def _has_no_nulls(file: DataFile, group: int, stored: str) -> bool:
    """Whether a row group says so of a column. A null known time is the event's, and no bound holds for it."""
    statistics = file.statistics(group, stored)
    return statistics is not None and statistics.has_null_count and statistics.null_count == 0


def _versions(files: tuple[DataFile, ...]) -> list[str] | None:
    """What tells each file from one that takes its place; None where that of some is not to be had."""
    known = [version for file in files if (version := _version(file)) is not None]
    return known if len(known) == len(files) else None


def _version(file: DataFile) -> str | None:
    if file.footer.version is not None:
        return repr(file.footer.version)
    return None if file.filesystem is None else _version_elsewhere(file, file.filesystem)


def _version_elsewhere(file: DataFile, filesystem: pafs.FileSystem) -> str | None:
    """When a file was written, how large it is, and its footer: stores tell the first to the second only."""
    try:
        info = filesystem.get_file_info(file.path)
    except (pa.ArrowException, OSError):
        return None
    if info.mtime_ns is None or info.size is None:
        return None
    footer = io.BytesIO()
    file.metadata.write_metadata_file(footer)
    return f"{info.mtime_ns} {info.size} {hashlib.sha256(footer.getvalue()).hexdigest()}"


_NO_ROW = 2**63 - 1
