"""Where a SQLite registry lies.

Feast resolves `path: sqlite:///...` against the working directory, though it resolves every other path of
`feature_store.yaml` against its folder: run from elsewhere it would open another, empty registry. Our plug-ins are
imported whenever Feast reads a file that names them, and then make a relative path mean the same everywhere.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from feast.repo_config import RepoConfig

_PREFIX = "sqlite:///"
_MARK = "_resolves_sqlite_paths"


def resolve_registry_paths() -> None:
    """Let `RepoConfig.registry` give SQLite paths relative to the repository. Done once for each process."""
    original = RepoConfig.registry.fget
    if original is None or hasattr(original, _MARK):
        return

    @wraps(original)
    def registry(self: RepoConfig) -> Any:
        found = original(self)
        path = getattr(found, "path", "")
        if self.repo_path is not None and path.startswith(_PREFIX):
            found.path = absolute_sqlite_url(path, Path(self.repo_path))
        return found

    setattr(registry, _MARK, True)
    RepoConfig.registry = property(registry)


def absolute_sqlite_url(url: str, folder: Path) -> str:
    """The URL with an absolute path, whose folder is made; in-memory databases and absolute paths stay."""
    place = url.removeprefix(_PREFIX)
    if not place or place.startswith((":memory:", "file:", "/")):
        return url
    file = folder.resolve() / place
    file.parent.mkdir(parents=True, exist_ok=True)
    return _PREFIX + str(file)
