"""Two defaults of Feast's registry that our plug-ins change for every repository that names them.

Feast resolves `path: sqlite:///...` against the working directory, though it resolves every other path of
`feature_store.yaml` against its folder: run from elsewhere it would open another, empty registry. And it refuses to
read a view that is being materialized for the second time, until that has ended; with our stores there is no moment at
which a view cannot be read. Both hold from the moment Feast reads a file that names a plug-in; a file that sets
`serve_features_while_materializing` itself is obeyed.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from feast.repo_config import RegistryConfig, RepoConfig

_PREFIX = "sqlite:///"
_MARK = "_changed_by_tidemill"
_SERVE = "serve_features_while_materializing"


def change_registry_defaults() -> None:
    """Let `RepoConfig.registry` follow the defaults above. Done once for each process."""
    original = RepoConfig.registry.fget
    if original is None or hasattr(original, _MARK):
        return

    @wraps(original)
    def registry(self: RepoConfig) -> Any:
        found = original(self)
        if isinstance(found, RegistryConfig):
            _change(found, None if self.repo_path is None else Path(self.repo_path))
        return found

    setattr(registry, _MARK, True)
    RepoConfig.registry = property(registry)  # pyright: ignore[reportAttributeAccessIssue]


def absolute_sqlite_url(url: str, folder: Path) -> str:
    """The URL with an absolute path, whose folder is made; in-memory databases and absolute paths stay."""
    place = url.removeprefix(_PREFIX)
    if not url.startswith(_PREFIX) or not place or place.startswith((":memory:", "file:", "/")):
        return url
    file = folder.resolve() / place
    file.parent.mkdir(parents=True, exist_ok=True)
    return _PREFIX + str(file)


def _change(found: RegistryConfig, folder: Path | None) -> None:
    if folder is not None and found.path.startswith(_PREFIX):
        found.path = absolute_sqlite_url(found.path, folder)
    if _SERVE not in found.model_fields_set:
        found.serve_features_while_materializing = True
