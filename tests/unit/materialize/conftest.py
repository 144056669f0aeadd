"""A small real project for materialization: Parquet history, a ledger, and a Redis of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from own_redis import redis_in
from weather_catalog import weather_catalog

from tidemill.clock import ManualClock
from tidemill.definitions import ValueType
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class World:
    """A project whose clock the test holds, and shorthands to add history and to read what is served."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self.clock = root, ManualClock(T0)
        (root / "feature_store.yaml").write_text("project: flights\n")
        self.project = Project(root, settings=Settings(redis_url=address), name="flights", clock=self.clock)
        self.project.catalogs.add(weather_catalog(path="data/weather", place=ValueType.STRING), at=T0)

    def happened(self, *rows: tuple[str, datetime, datetime, float | None, int | None], file: str = "a") -> None:
        """Rows of (origin, event time, known time, temp, wind), as one more file of the source."""
        schema = {
            "origin": pl.String,
            "at": pl.Datetime("us", "UTC"),
            "known": pl.Datetime("us", "UTC"),
            "temp": pl.Float64,
            "wind": pl.Int64,
        }
        folder = self.root / "data" / "weather"
        folder.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / f"{file}.parquet")

    def run(self, until: datetime, **more):
        self.clock.set(max(until, self.clock.now()))
        return self.project.materializer.materialize(until=until, at=self.clock.now(), **more)

    def served(self, *origins: str) -> list[float | None]:
        return self.project.online.read("s", [{"origin": origin} for origin in origins]).values["temp"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("materialize") / "redis") as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[World]:
    address = redis_server.ensure_started()
    with redis.Redis.from_url(address) as client:
        client.flushall()
    world = World(tmp_path, address)
    yield world
    world.project.close()
