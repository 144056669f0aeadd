"""A small project with a Redis of its own, and a reader that hammers it while something breaks."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from tidemill.clock import ManualClock
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, Source, ValueType, View
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.materialize.run import RunReport
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENTITIES, HOURS = 400, 40
READ = 20  # entities that the reader asks for


def catalog() -> Catalog:
    features = (Feature(name="temp", dtype=ValueType.DOUBLE), Feature(name="wind", dtype=ValueType.INT64))
    return Catalog(
        project="flights",
        entities=(Entity(name="origin", join_key="origin", dtype=ValueType.INT64),),
        sources=(Source(name="weather", path="data", timestamp_field="at", known_field="known"),),
        views=(View(name="weather", entities=("origin",), join_keys=("origin",), features=features, source="weather"),),
        services=(Service(name="s", projections=(Projection(view="weather", features=("temp", "wind")),)),),
    )


@dataclass
class Seen:
    """What the reader saw: how often it was answered, what it was refused for, and every value that cannot be."""

    answers: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class World:
    """Hourly weather of 400 places, a tenth of it known late. `temp` tells hour and place, `wind` is twice `temp`."""

    def __init__(self, root: Path, server: EmbeddedRedis) -> None:
        self.root, self.server = root, server
        self.clock = ManualClock(T0 + 2 * HOURS * HOUR)
        self.write_history()
        self.project = self.open_project()

    def open_project(self, **settings: object) -> Project:
        (self.root / "feature_store.yaml").write_text("project: flights\n")
        chosen = Settings(redis_url=self.server.url, **settings)  # pyright: ignore[reportArgumentType]
        project = Project(self.root, settings=chosen, name="flights", clock=self.clock)
        project.catalogs.add(catalog(), at=T0)
        return project

    def write_history(self, *, scale: float = 1.0) -> None:
        chance = random.Random(3)
        rows = [
            (place, T0 + hour * HOUR, T0 + (hour + chance.choice([0] * 9 + [2])) * HOUR, scale * (1_000 * hour + place))
            for hour in range(HOURS)
            for place in range(ENTITIES)
        ]
        instant = pl.Datetime("us", "UTC")
        schema = {"origin": pl.Int64, "at": instant, "known": instant, "temp": pl.Float64}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        frame = frame.with_columns((2 * pl.col("temp")).cast(pl.Int64).alias("wind"))
        (self.root / "data").mkdir(exist_ok=True)
        fresh = self.root / "fresh.tmp"
        frame.write_parquet(fresh)
        fresh.rename(self.root / "data" / "a.parquet")

    def materialize(self, until: datetime, *, at: datetime | None = None) -> RunReport:
        """The last of the runs that bring the store up to `until`."""
        return self.project.materializer.materialize(until=until, at=at or max(until, T0 + HOURS * HOUR))[-1]

    def stored(self) -> dict[bytes, dict[bytes, bytes]]:
        """Everything in Redis, but for when each value was learned: a run that was put off learns it later."""
        with redis.Redis.from_url(self.server.url) as client:
            return {
                key: {name: raw[:16] if name.startswith(b"_kt:") else raw for name, raw in client.hgetall(key).items()}
                for key in client.scan_iter(count=10_000)
            }

    def clean_state(self, until: datetime) -> dict[bytes, dict[bytes, bytes]]:
        """What one run that nothing disturbs leaves."""
        with redis.Redis.from_url(self.server.url) as client:
            client.flushall()
        self.project.online.write("weather", self.project.offline.latest("weather", end=until), learned=until)
        return self.stored()

    @contextmanager
    def reading(self, *, scales: tuple[float, ...] = (1.0,)) -> Iterator[Seen]:
        """Read all the while. A value may only be one that the place had at some hour, and never an older one again.

        `scales` are those of the histories that were written.
        """
        over, seen = threading.Event(), Seen()
        newest: dict[int, float] = {}
        store = self.project.online
        rows = [{"origin": place} for place in range(READ)]

        def read() -> None:
            while not over.is_set():
                try:
                    found = store.read("s", rows).values
                except OnlineStoreUnavailableError as error:
                    seen.refused.append(str(error))
                    time.sleep(0.01)
                    continue
                seen.answers += 1
                for place, temp, wind in zip(range(READ), found["temp"], found["wind"], strict=True):
                    hour = _hour_of(place, temp, wind, scales)
                    if hour is None or hour < newest.get(place, -1):
                        seen.wrong.append(f"{place}: {temp} beside {wind} after hour {newest.get(place)}")
                    newest[place] = max(newest.get(place, -1), hour or -1)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


def _hour_of(place: int, temp: float | None, wind: int | None, scales: tuple[float, ...]) -> float | None:
    """The hour at which a place had these values, -1 before the first, None where it never had them."""
    if temp is None or wind is None:
        return -1 if temp is None and wind is None else None
    hours = ((temp / scale - place) / 1_000 for scale in scales)
    return next((hour for hour in hours if hour in range(HOURS) and wind == int(2 * temp)), None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis", maxmemory="256mb")
    server.ensure_started()
    yield server
    server.stop()


@pytest.fixture
def world(tmp_path: Path, server: EmbeddedRedis) -> Iterator[World]:
    found = World(tmp_path, server)
    yield found
    found.project.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB that can really be full."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk; a limit on the size of files is tested in any case")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
