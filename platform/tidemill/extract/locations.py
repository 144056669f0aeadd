"""Which files a reader's path names: a file, several (`*`), or a folder, of this machine or an object store.

Of folders only what is finished and of the reader's kind is read: other programs keep markers (`_SUCCESS`), checksums
and half-written files beside their data. Passwords and query strings of URLs are never shown.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tidemill.errors import ConfigurationError, SourceError

# What Polars reads by itself, in parallel and only the parts that are needed. Everything else goes through fsspec.
_NATIVE = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "hf", "http", "https", "file"})
_LISTED = _NATIVE - {"http", "https"}
_MARKS = re.compile(r"[*?\[]")
_SECRET_PARTS = re.compile(r"(\w://)[^\s/?#@]*@|(\w://[^\s?]*)\?[^\s)]*")

_ROOT: ContextVar[Path | None] = ContextVar("root", default=None)
_READ: ContextVar[list[str] | None] = ContextVar("read", default=None)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file, and how the names of such files end."""

    name: str
    endings: tuple[str, ...]


PARQUET = Kind(name="Parquet", endings=(".parquet", ".pq"))
CSV = Kind(name="CSV", endings=(".csv", ".csv.gz", ".csv.zst", ".tsv", ".txt"))


@dataclass(frozen=True, kw_only=True)
class Located:
    """What Polars is given to scan; `partitioned` where the names of folders say something of the rows."""

    found: Any
    glob: bool = False
    partitioned: bool = False


@contextmanager
def reading_below(root: Path) -> Iterator[None]:
    """Relative paths given to readers are meanwhile relative to `root`, and their URLs kept in mind as secret."""
    before = _ROOT.set(root), _READ.set([])
    try:
        yield
    finally:
        _ROOT.reset(before[0])
        _READ.reset(before[1])


def locate(path: str | Path, kind: Kind, options: Mapping[str, Any]) -> Located:
    """Raises SourceError where nothing is there, ConfigurationError for an address that nothing knows how to read."""
    text = str(path)
    if "://" not in text:
        return _local(text, kind)
    read = _READ.get()
    if read is not None:
        read.append(text)
    scheme = urlsplit(text).scheme
    if scheme not in _NATIVE:
        return Located(found=_through_fsspec(text, kind, options))
    if scheme in _LISTED and text.endswith("/"):
        return Located(found=f"{text}**/*{kind.endings[0]}", glob=True, partitioned=True)
    return Located(found=text, glob=True)


def without_secrets(text: str) -> str:
    """A message of another library's without what is secret in the URLs that were read."""
    for url in _READ.get() or ():
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        for secret in (f"?{parts.query}", parts.query, user + at):
            text = text.replace(secret, "") if len(secret) > 1 else text
    return _SECRET_PARTS.sub(lambda found: found[1] or found[2], text)


def _local(text: str, kind: Kind) -> Located:
    place = (_ROOT.get() or Path.cwd()) / text
    if place.is_file():
        return Located(found=[place])
    if place.is_dir():
        names = list(_below(place, kind))
        return Located(found=[place / name for name in names], partitioned=any("=" in name for name in names))
    if not _MARKS.search(text):
        raise SourceError(f"There is no file {place}.", hint="Paths are relative to the project's folder.")
    named = glob.glob(_absolute(text), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [file for file in sorted(map(Path, named)) if file.is_file()]
    if not files:
        raise SourceError(f"There is no file {place}.", hint="Paths are relative to the project's folder.")
    return Located(found=files)


def _absolute(text: str) -> str:
    if Path(text).is_absolute():
        return text
    return f"{glob.escape(str(_ROOT.get() or Path.cwd()))}/{text}"


def _below(folder: Path, kind: Kind) -> Sequence[str]:
    found = _of_kind((file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()), kind)
    if not found:
        raise SourceError(f"There is no {kind.name} file in {folder}.")
    return found


def _of_kind(names: Iterable[str], kind: Kind) -> list[str]:
    """Those that are finished and called as the kind's files are; all that are finished where none is called so."""
    finished = sorted(name for name in names if not any(part[0] in "._" for part in PurePosixPath(name).parts))
    return [name for name in finished if name.lower().endswith(kind.endings)] or finished


def _through_fsspec(url: str, kind: Kind, options: Mapping[str, Any]) -> list[BytesIO]:
    import fsspec

    try:
        store, place = fsspec.core.url_to_fs(url, **options)
        if _MARKS.search(place):
            names = [name for name in sorted(store.glob(place)) if store.isfile(name)]
        elif store.isdir(place):
            below = (name.removeprefix(place).lstrip("/") for name in store.find(place))
            names = [f"{place.rstrip('/')}/{name}" for name in _of_kind(below, kind)]
        else:
            names = [place]
        found = [BytesIO(store.cat_file(name)) for name in names]
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"{_shown(url)} cannot be opened: {without_secrets(str(error))}") from None
    except OSError as error:
        raise SourceError(f"{_shown(url)} cannot be read: {type(error).__name__}.") from error
    if not found:
        raise SourceError(f"Nothing is found at {_shown(url)}.")
    return found


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
