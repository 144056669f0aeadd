"""What a run says it has seen is what it has seen, and what the store no longer holds is loaded again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from own_redis import redis_in

from tidemill.clock import ManualClock
from tidemill.definitions import Catalog, Entity, Feature, Schedule, Source, ValueType, View
from tidemill.extract import extract
from tidemill.monitor.freshness import freshness
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project, open_project
from tidemill.schedule.worker import Worker
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
JUST = timedelta(microseconds=1)

EXTRACT = """
import polars as pl
from tidemill.extract import extracts

@extracts(source="measured")
def measured(start, end):
    minutes = pl.datetime_range(start, end, "1m", closed="left", time_zone="UTC", eager=True)
    count = minutes.dt.epoch("s") // 60
    return pl.DataFrame({"at": minutes, "origin": "M" + (count % 60).cast(pl.String), "temp": count.cast(pl.Float64)})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, server: EmbeddedRedis) -> Iterator[Project]:
    """A source that is extracted at minute 1 of each hour, and a view of it that is loaded at minute 5."""
    (tmp_path / "feature_store.yaml").write_text("project: airports\n")
    (tmp_path / "extract.py").write_text(EXTRACT)
    settings = Settings(redis_url=server.url)  # pyright: ignore[reportArgumentType] - pydantic makes it secret
    opened = open_project(tmp_path, clock=ManualClock(T0), settings=settings)
    source = Source(name="measured", path="data", timestamp_field="at", schedule=Schedule(cron="1 * * * *"))
    view = View(
        name="weather",
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="temp", dtype=ValueType.DOUBLE),),
        source="measured",
        schedule=Schedule(cron="5 * * * *"),
    )
    entity = Entity(name="origin", join_key="origin", dtype=ValueType.STRING)
    opened.catalogs.add(Catalog(project="airports", entities=(entity,), sources=(source,), views=(view,)), at=T0)
    opened.reload()
    opened.online.resp.call("FLUSHALL")
    yield opened
    opened.close()


def served(project: Project) -> dict[int, float]:
    """The newest value of each minute of the hour, where there is one."""
    found = project.online.read_features(["weather:temp"], [{"origin": f"M{minute}"} for minute in range(60)])
    return {minute: temp for minute, temp in enumerate(found.values["temp"]) if temp is not None}


def newest_until(end: datetime) -> dict[int, float]:
    """What `served` ought to be when everything known before `end` was loaded."""
    last = int(end.timestamp()) // 60 - 1
    return {count % 60: float(count) for count in range(last - 59, last + 1)}


def run_due(project: Project, worker: Worker, at: datetime) -> list[str]:
    project.clock.set(at)  # pyright: ignore[reportAttributeAccessIssue] - a ManualClock
    return [f"{report.view} {report.state}" for report in worker.run_due(at)]


def test_rows_between_extraction_and_tick_are_not_claimed_as_seen_and_are_loaded_next_time(project: Project) -> None:
    extract(project, start=T0 - 2 * HOUR, end=T0 + MINUTE)
    worker = Worker(project)
    for hour in range(1, 4):
        assert run_due(project, worker, T0 + hour * HOUR + 5 * MINUTE) == [
            "extract:measured succeeded",
            "weather succeeded",
        ]
        assert run_due(project, worker, T0 + hour * HOUR + 6 * MINUTE) == []
    (state,) = freshness(project, at=T0 + 3 * HOUR + 9 * MINUTE)
    assert not state.is_late, "it has seen all that there was to see"
    landed = T0 + 3 * HOUR + MINUTE
    assert project.ledger.last_cutoff("weather") == landed - JUST
    assert project.ledger.last_end("weather") == T0 + 3 * HOUR + 5 * MINUTE
    assert served(project) == newest_until(landed)


def test_a_run_before_the_extraction_loses_nothing_of_what_it_lands_later(project: Project) -> None:
    extract(project, start=T0 - 2 * HOUR, end=T0)
    project.clock.set(T0 + HOUR)  # pyright: ignore[reportAttributeAccessIssue]
    (report,) = project.materialize()
    assert (report.end, report.cutoff) == (T0 + HOUR, T0 - JUST)
    assert [again.state for again in project.materialize()] == ["current"]
    extract(project, start=T0, end=T0 + HOUR)
    (report,) = project.materialize()
    assert (report.state, report.rows_read, report.cutoff) == ("succeeded", 60, T0 + HOUR - JUST)
    assert served(project) == newest_until(T0 + HOUR)


def test_a_source_that_the_project_does_not_extract_is_taken_to_be_complete(project: Project) -> None:
    extract(project, start=T0 - 2 * HOUR, end=T0)
    (project.root / "extract.py").unlink()
    project.clock.set(T0 + HOUR)  # pyright: ignore[reportAttributeAccessIssue]
    (report,) = project.materialize()
    assert report.cutoff == T0 + HOUR


def test_where_extraction_stands_still_ticks_are_still_done_once_each(project: Project) -> None:
    extract(project, start=T0 - 2 * HOUR, end=T0)
    catalog = project.catalog
    project.catalogs.add(replace(catalog, sources=(replace(catalog.source("measured"), schedule=None),)), at=T0)
    project.reload()
    worker = Worker(project)
    for hour in range(1, 5):
        assert run_due(project, worker, T0 + hour * HOUR + 5 * MINUTE) == ["weather succeeded"]
    runs = project.ledger.runs("weather")
    assert [run.cutoff for run in runs] == [T0 - JUST] * 4
    assert [run.start for run in runs[:-1]] == [run.end for run in runs[1:]]
    assert [run.rows_read for run in runs] == [0, 0, 0, 120]


def test_what_was_forgotten_is_loaded_again_from_the_beginning(project: Project) -> None:
    extract(project, start=T0 - 2 * HOUR, end=T0 + HOUR)
    project.clock.set(T0 + HOUR)  # pyright: ignore[reportAttributeAccessIssue]
    project.materialize()
    project.online.resp.call("FLUSHALL")
    assert [report.state for report in project.materialize()] == ["current"]
    project.ledger.forget("weather", at=T0 + HOUR)
    (report,) = project.materialize()
    assert (report.state, report.rows_written) == ("succeeded", 60)
    assert served(project) == newest_until(T0 + HOUR)
    assert len(project.ledger.cutoffs("weather")[0]) == 2, "what was served before stays known"


def test_a_forgotten_view_is_scheduled_again_and_again(project: Project) -> None:
    extract(project, start=T0 - 2 * HOUR, end=T0 + 9 * HOUR)
    worker = Worker(project)
    run_due(project, worker, T0 + HOUR + 5 * MINUTE)
    project.online.resp.call("FLUSHALL")
    project.ledger.forget("weather", at=T0 + HOUR + 6 * MINUTE)
    assert run_due(project, Worker(project), T0 + HOUR + 7 * MINUTE)[-1] == "weather succeeded"
    assert run_due(project, Worker(project), T0 + 2 * HOUR + 5 * MINUTE)[-1] == "weather succeeded"
    assert served(project) == newest_until(T0 + 2 * HOUR + 5 * MINUTE + MINUTE)


def test_a_clock_that_was_ahead_for_a_while_keeps_no_later_row_out(project: Project) -> None:
    (project.root / "extract.py").unlink()
    folder = project.root / "data"
    folder.mkdir()

    def happened(minutes: int) -> None:
        count = pl.int_range(minutes, eager=True)
        frame = pl.DataFrame({"at": [T0 + minute * MINUTE for minute in range(minutes)]})
        frame = frame.with_columns(origin=pl.format("M{}", count % 60), temp=count.cast(pl.Float64))
        frame.write_parquet(folder / f"{minutes}.parquet")

    worker = Worker(project)
    happened(60)
    assert run_due(project, worker, T0 + HOUR + 5 * MINUTE) == ["weather succeeded"]
    assert run_due(project, worker, T0 + 9_000 * HOUR + 5 * MINUTE) == ["weather succeeded"]
    happened(180)
    assert run_due(project, Worker(project), T0 + 3 * HOUR + 5 * MINUTE) == ["weather succeeded"]
    assert served(project) == {minute: 120.0 + minute for minute in range(60)}
    assert run_due(project, Worker(project), T0 + 3 * HOUR + 6 * MINUTE) == []


@pytest.mark.parametrize("ahead", [HOUR, 5 * HOUR, 30 * HOUR])
def test_what_arrives_until_time_comes_to_where_a_clock_had_been_is_loaded(project: Project, ahead: timedelta) -> None:
    """The run of a clock that was ahead had seen nothing of what has happened since, whatever it says."""
    (project.root / "extract.py").unlink()
    (project.root / "data").mkdir()
    worker, landed = Worker(project), []

    def look(now: datetime, clock: datetime) -> None:
        origin = f"H{len(landed)}"
        frame = pl.DataFrame({"at": [now - MINUTE], "origin": [origin], "temp": [1.0]})
        frame.write_parquet(project.root / "data" / f"{origin}.parquet")
        landed.append(origin)
        run_due(project, worker, clock)

    for hour in range(40):
        now = T0 + hour * HOUR + 5 * MINUTE
        look(now, now)
        if hour == 2:
            look(now + 15 * MINUTE, now + 15 * MINUTE + ahead)
    found = project.online.read_features(["weather:temp"], [{"origin": origin} for origin in landed])
    assert dict(zip(landed, found.values["temp"], strict=True)) == dict.fromkeys(landed, 1.0)
    assert project.ledger.last_cutoff("weather") == now
