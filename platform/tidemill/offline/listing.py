"""Which files a source consists of: a file and what was appended to it, a folder, a URL, or a Delta table."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from tidemill.definitions.catalog import Source
from tidemill.errors import SourceError

APPENDED = ".d"
"""A source that is one file keeps what is appended to it in a folder of the same name with this suffix."""

_PARTITION = re.compile(r"([^/=]+)=([^/]*)")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file of a source: where it lies, its name below the source, and what its folders' names say of its rows."""

    path: str
    name: str
    partition: Mapping[str, str | None]
    filesystem: pafs.FileSystem | None = None


def resolve(path: str, root: Path) -> str:
    """A source's path: absolute and URLs as they are, anything else relative to the project's folder."""
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://"))
    return path if "://" in path else str(root / path)


def list_files(source: Source, where: str) -> list[Listed]:
    """The files of a source at a resolved path, in their order. Raises SourceError where there is nothing."""
    if source.file_format == "delta":
        return _list_delta(where, source)
    return _list_remote(where, source) if "://" in where else _list_local(where, source)


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


def _list_local(where: str, source: Source) -> list[Listed]:
    path = Path(where)
    beside = path.with_name(path.name + APPENDED)
    if path.is_file() or (beside.is_dir() and not path.exists()):
        found = [path] if path.exists() else []
        more = parquet_files(beside) if beside.is_dir() else []
        return [Listed(path=str(file), name=file.name, partition={}) for file in [*found, *more]]
    if path.is_dir():
        return [Listed(path=f"{where}/{name}", name=name, partition=_partition(name)) for name in _parquet_names(path)]
    raise SourceError(
        f"Source {source.name!r} is not there: {where} is neither a file nor a folder.",
        hint="Run `tidemill extract`, or correct the source's path (relative ones start at the project's folder).",
    )


def _list_remote(where: str, source: Source) -> list[Listed]:
    try:
        filesystem, path = pafs.FileSystem.from_uri(where)
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [Listed(path=path, name=Path(path).name, partition={}, filesystem=filesystem)]
        listed = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"Source {source.name!r} at {where} cannot be listed: {error}.") from error
    names = sorted(
        item.path.removeprefix(path).lstrip("/")
        for item in listed
        if item.type == pafs.FileType.File and item.extension in {"parquet", "pq"}
    )
    return [
        Listed(path=f"{path}/{name}", name=name, partition=_partition(name), filesystem=filesystem)
        for name in names
        if not _hidden(name)
    ]


def _list_delta(where: str, source: Source) -> list[Listed]:
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
        Listed(
            path=f"{base}/{unquote(action['path'])}",
            name=unquote(action["path"]),
            partition={
                name.removeprefix("partition."): None if value is None else str(value)
                for name, value in action.items()
                if name.startswith("partition.")
            },
            filesystem=filesystem,
        )
        for action in actions
    ]


def _partition(name: str) -> dict[str, str | None]:
    folders = name.rpartition("/")[0]
    return {
        unquote(key): None if value == _NULL_PARTITION else unquote(value) for key, value in _PARTITION.findall(folders)
    }


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
