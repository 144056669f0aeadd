"""A small Feast repository with our plug-ins, its files on disk and its own Redis."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the repository is imported by name

from rides import CONFIGURATION, NOON, write_files


@pytest.fixture(scope="module", autouse=True)
def feasts_own_store_starts_no_threads() -> Iterator[None]:
    """Dask computes for it, in threads that live as long as the process."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after Feast's own apply; copied for each test."""
    from tidemill.feast.apply import register
    from tidemill.feast.repository import opened_repository

    folder = tmp_path_factory.mktemp("applied") / "rides"
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(CONFIGURATION)
    write_files(folder)
    with opened_repository(folder) as repository:
        register(repository)
    return folder


@pytest.fixture
def root(applied: Path, tmp_path: Path) -> Iterator[Path]:
    """The repository's folder at noon of its simulated clock; its Redis is stopped afterwards."""
    from own_redis import closed_with_redis

    import tidemill

    folder = tmp_path / "rides"
    shutil.copytree(applied, folder)
    project = tidemill.open(folder)
    project.clock.set(NOON)
    with closed_with_redis(project):
        yield folder


@pytest.fixture
def store(root: Path) -> Any:
    """Feast's own SDK on the repository."""
    from feast import FeatureStore

    return FeatureStore(repo_path=str(root))
