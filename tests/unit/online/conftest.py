"""A real Redis for the tests of this folder, emptied between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tidemill.online.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("online") / "redis", maxmemory="256mb")
    server.ensure_started()
    yield server
    server.stop()


@pytest.fixture
def address(redis_server: EmbeddedRedis) -> str:
    """The address of an empty Redis."""
    url = redis_server.ensure_started()
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that a test may stop and start."""
    server = EmbeddedRedis(tmp_path / "redis", maxmemory="64mb")
    server.ensure_started()
    yield server
    server.stop()
