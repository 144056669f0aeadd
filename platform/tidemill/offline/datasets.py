"""Snapshots of training sets: files, their manifest, and what they were made from."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl

from tidemill.clock import is_settled
from tidemill.definitions.serialization import digest_of
from tidemill.errors import NotReproducibleError, SourceError
from tidemill.offline.content import SEGMENT_ROWS, ContentDigest
from tidemill.offline.files import SourceFiles
from tidemill.offline.selection import Selection

if TYPE_CHECKING:
    from tidemill.offline.sinking import Progress
    from tidemill.offline.store import OfflineStore
    from tidemill.offline.training_set import TrainingSet

LIBRARIES = ("polars", "pyarrow", "numpy")
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A training set on disk. Its `digest` is that of its content, the same on any machine."""

    folder: Path
    rows: int
    digest: str
    manifest: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def scan(self) -> pl.LazyFrame:
        """The rows, in the spine's order."""
        return pl.scan_parquet(self.files, glob=False)

    def verify(self) -> None:
        """Raise NotReproducibleError unless the files still hold what the manifest says."""
        digest = ContentDigest(self.scan().collect_schema())
        for piece in self._pieces():
            digest.update(piece)
        if digest.hexdigest() != self.digest:
            raise NotReproducibleError(
                f"The files in {self.folder} no longer hold what their manifest says: "
                f"digest {digest.hexdigest()[:16]}, recorded {self.digest[:16]}.",
                hint="Build the dataset again.",
            )

    def _pieces(self) -> Iterator[pl.DataFrame]:
        rows = 16 * SEGMENT_ROWS
        for start in range(0, max(self.rows, 1), rows):
            yield self.scan().slice(start, rows).collect()


def write_dataset(
    training_set: TrainingSet,
    folder: str | Path,
    *,
    memory_limit: str | int | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Keep a training set below `folder` under the name of its digest; the same content is kept once.

    Raises UnavailableError where the disk fills; nothing is left behind then.
    """
    parent = Path(folder)
    fresh = training_set.sink(parent / f"new-{uuid4().hex[:8]}", memory_limit=memory_limit, progress=progress)
    final = parent / training_set.digest[:16]
    if final.exists():
        rmtree(fresh)
    else:
        fresh.rename(final)
    return read_dataset(final)


def read_dataset(folder: str | Path) -> Snapshot:
    """Open a snapshot. Raises SourceError where there is none."""
    where = Path(folder)
    try:
        manifest = json.loads((where / MANIFEST).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise SourceError(
            f"{where} holds no dataset: {error}.", hint="Build one with `tidemill dataset build`."
        ) from None
    return Snapshot(folder=where, rows=manifest["rows"], digest=manifest["digest"], manifest=manifest)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def describe_inputs(store: OfflineStore, selection: Selection) -> dict[str, Any]:
    """Sources with their files' digests, definitions' hash, and the versions of what computed."""
    names = sorted({item.view.source for item in selection.views})
    definitions = [item.view for item in selection.views] + [item.view for item in selection.on_demand]
    return {
        "asked": list(selection.asked),
        "catalog_digest": store.catalog.digest,
        "definitions_digest": digest_of(definitions),
        "sources": {name: describe_source(store.source_files(name)) for name in names},
        "versions": {"python": platform.python_version(), "tidemill": version("tidemill")}
        | {name: version(name) for name in LIBRARIES},
    }


def describe_source(files: SourceFiles) -> dict[str, Any]:
    """The files of a source: names relative to it, rows, bytes and SHA-256."""
    found = [
        {"file": file.name, "rows": file.metadata.num_rows, "bytes": _size(file.path), "sha256": _sha256(file.path)}
        if file.filesystem is None
        else {"file": file.name, "rows": file.metadata.num_rows}
        for file in files.files
    ]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return {"path": files.source.path, "rows": files.rows, "digest": digest, "files": found}


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _sha256(path: str) -> str:
    stat = Path(path).stat()
    digest = _sha256_of if is_settled(stat) else _sha256_of.__wrapped__
    return digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of(path: str, _size: int, _changed: int) -> str:
    """The digest of a file, remembered as long as the file has the same size and time."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
