"""A small project with a Redis of its own, and a reader that hammers it while something breaks."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from hammering import Seen, hammering
from own_redis import redis_in
from weather_catalog import weather_catalog

from tidemill.clock import ManualClock
from tidemill.definitions import ValueType
from tidemill.materialize.report import RunReport
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENTITIES, HOURS = 400, 40
READ = 20  # entities that the reader asks for


class World:
    """Hourly weather of 400 places, a tenth of it known late.

    `temp` tells place and hour and, in 512ths, the edition of the history; `wind` is `temp` in 1,024ths. So whoever
    reads one knows the other, and when both were written.
    """

    def __init__(self, root: Path, server: EmbeddedRedis) -> None:
        self.root, self.server = root, server
        self.clock = ManualClock(T0 + 2 * HOURS * HOUR)
        self.write_history()
        self.project = self.open_project()

    def open_project(self, **settings: object) -> Project:
        (self.root / "feature_store.yaml").write_text("project: flights\n")
        chosen = Settings(redis_url=self.server.url, **settings)  # pyright: ignore[reportArgumentType]
        project = Project(self.root, settings=chosen, name="flights", clock=self.clock)
        project.catalogs.add(weather_catalog(path="data", place=ValueType.INT64), at=T0)
        return project

    def write_history(self, *, edition: int = 0) -> None:
        """Put a history in the place of the one before, at once; fewer than 512 editions can be told apart."""
        frame = _history().with_columns(pl.col("temp") + edition / 512)
        frame = frame.with_columns((1_024 * pl.col("temp")).cast(pl.Int64).alias("wind"))
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

    def reading(self, *, goes: bool = False) -> AbstractContextManager[Seen]:
        """Read all the while. A value may only be one that the place had at some hour, and never an older one again.

        Where the view `goes` meanwhile, its values may be gone, and do not come back.
        """
        store, judge = self.project.online, Judge(goes=goes)
        rows = [{"origin": place} for place in range(READ)]
        return hammering(lambda: store.read("s", rows).values, judge)


@cache
def _history() -> pl.DataFrame:
    chance = random.Random(3)
    rows = [
        (place, T0 + hour * HOUR, T0 + (hour + chance.choice([0] * 9 + [2])) * HOUR, 1_000 * hour + place)
        for hour in range(HOURS)
        for place in range(ENTITIES)
    ]
    instant = pl.Datetime("us", "UTC")
    schema = {"origin": pl.Int64, "at": instant, "known": instant, "temp": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


class Judge:
    """Says what is wrong with the values that were read: torn, never true, older than before, or back from nowhere."""

    def __init__(self, *, goes: bool) -> None:
        self._goes = goes
        self._newest: dict[int, tuple[int, int]] = {}
        self._gone: set[int] = set()

    def __call__(self, found: dict[str, list[Any]]) -> Iterator[str]:
        for place, temp, wind in zip(range(READ), found["temp"], found["wind"], strict=True):
            newest = self._newest.get(place)
            if not self._is_right(place, temp, wind):
                yield f"{place}: {temp} beside {wind} after hour and edition {newest}"

    def _is_right(self, place: int, temp: float | None, wind: int | None) -> bool:
        newest = self._newest.get(place)
        if temp is None and wind is None:
            if newest is not None:
                self._gone.add(place)
            return newest is None or self._goes
        written = _written(place, temp, wind)
        if written is None or place in self._gone:
            return False
        hour, edition = newest or (-1, -1)
        self._newest[place] = max(hour, written[0]), max(edition, written[1])
        return written[0] >= hour and written[1] >= edition


def _written(place: int, temp: float | None, wind: int | None) -> tuple[int, int] | None:
    """The hour and the edition in which a place has these values, None if it has them in none."""
    if temp is None or wind is None or wind != 1_024 * temp:
        return None
    hour, rest = divmod(int(temp) - place, 1_000)
    edition = (temp - int(temp)) * 512
    return (hour, int(edition)) if rest == 0 and hour in range(HOURS) and edition.is_integer() else None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path / "redis") as server:
        yield server


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
