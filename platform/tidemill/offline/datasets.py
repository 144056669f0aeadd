"""What a training set was made from, and training sets kept as files with their manifest."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.definitions.serialization import digest_of
from tidemill.offline.files import SourceFiles
from tidemill.offline.selection import Selection

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

LIBRARIES = ("polars", "pyarrow", "numpy")
MANIFEST = "manifest.json"


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
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
