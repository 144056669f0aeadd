"""A Redis of a test's own, which ends with whatever needed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project


@contextmanager
def redis_in(folder: Path, *, maxmemory: str = "256mb") -> Iterator[EmbeddedRedis]:
    """A running Redis with its files in `folder`."""
    server = EmbeddedRedis(folder, maxmemory=maxmemory)
    try:
        server.ensure_started()
        yield server
    finally:
        server.stop()


@contextmanager
def closed_with_redis(project: Project) -> Iterator[Project]:
    """The project, which is closed in the end; the Redis that it started, or that was started for it, is stopped."""
    try:
        yield project
    finally:
        EmbeddedRedis(project.redis_folder).stop()
        project.close()
