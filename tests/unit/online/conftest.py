"""A real Redis for the tests of this folder, emptied between them, and stores on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

sys.path.insert(0, str(Path(__file__).parent))  # what several files share is imported by name

from online_stores import open_store
from own_redis import redis_in
from push_parts import OpenProject, parts_of_project
from store_parts import T0

from tidemill.definitions import Catalog
from tidemill.definitions.catalog import View
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.store import OnlineStore


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("online") / "redis") as server:
        yield server


@pytest.fixture
def address(redis_server: EmbeddedRedis) -> str:
    """The address of an empty Redis."""
    url = redis_server.ensure_started()
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def project_at(address: str, tmp_path: Path) -> Iterator[OpenProject]:
    """Opens projects to push to, on that Redis and in the test's folder unless told otherwise: see `push_parts`."""
    opened: list[Any] = []
    here = address

    def open_project(*views: View, name: str = "flights", address: str | None = None, root: Path | None = None) -> Any:
        opened.append(parts_of_project(address or here, root or tmp_path, *views, name=name))
        return opened[-1]

    yield open_project
    for project in opened:
        project.online.close()


@pytest.fixture
def project(project_at: OpenProject) -> Any:
    """The parts of a project to push to."""
    return project_at()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that a test may stop and start."""
    with redis_in(tmp_path / "redis", maxmemory="64mb") as server:
        yield server


@pytest.fixture(params=["feast", "packed"])
def make(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Iterator[Callable[..., OnlineStore]]:
    """Builds stores of a catalog on that Redis, in either layout."""
    stores: list[OnlineStore] = []

    def build(found: Catalog, **settings: Any) -> OnlineStore:
        store = open_store(found, address, at=T0, root=tmp_path, **({"online_layout": request.param} | settings))
        stores.append(store)
        return store

    yield build
    for store in stores:
        store.close()
