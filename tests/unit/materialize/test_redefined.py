"""Definitions that change while a run is under way, or between the death of a worker and whoever continues its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tidemill.definitions.catalog import Catalog, Schedule, Source
from tidemill.project import Project
from tidemill.schedule.worker import Worker

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
GONE = "elsewhere:1:1"


@pytest.fixture
def redefine(world: Any) -> Callable[[], Catalog]:
    """Have the view read another source, whose values are negative, as `tidemill apply` does."""
    rows = [(f"K{place}", T0 + hour * HOUR, T0 + hour * HOUR, hour, hour) for hour in range(9) for place in range(3)]
    catalog = world.project.catalog
    other = Source(name="other", path="data/other", timestamp_field="at", known_field="known")
    world.happened(*((key, at, known, -1.0 - value, value) for key, at, known, value, _ in rows))
    (world.root / "data" / "weather").rename(world.root / "data" / "other")
    world.happened(*((key, at, known, float(value), value) for key, at, known, value, _ in rows))
    hourly = replace(catalog.view("weather"), schedule=Schedule(cron="0 * * * *"))
    world.project.catalogs.add(replace(catalog, sources=(*catalog.sources, other), views=(hourly,)), at=T0)
    world.project.reload()

    def change() -> Catalog:
        before = world.project.catalogs.newest().catalog
        after = replace(before, views=(replace(before.view("weather"), source="other"),))
        world.project.ledger.forget("weather", at=world.clock.now(), redefined=True)
        world.project.catalogs.add(after, at=world.clock.now())
        world.project.ledger.forget("weather", at=world.clock.now(), redefined=True)
        return after

    return change


def at_hour(world: Any, hour: int) -> datetime:
    world.clock.set(T0 + hour * HOUR)
    return T0 + hour * HOUR


@pytest.mark.parametrize("when", ["before it claims", "while it writes"])
def test_a_run_by_definitions_that_are_no_longer_in_force_does_not_count(
    world: Any, redefine: Callable[[], Catalog], when: str
) -> None:
    old, ledger = Worker(world.project), world.project.ledger
    old.run_due(at_hour(world, 2))
    name = {"before it claims": "claim", "while it writes": "save_progress"}[when]
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": "200mb"})
    usual = getattr(ledger, name)

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        setattr(ledger, name, usual)
        redefine()
        return usual(*arguments, **named)

    setattr(ledger, name, meanwhile)
    (report,) = old.run_due(at_hour(world, 4))
    assert (report.state, "defined anew" in str(report.error)) == ("failed", True)
    assert ledger.last_cutoff("weather") is None

    world.project.reload()
    (report,) = Worker(world.project).run_due(at_hour(world, 5))
    assert (report.state, report.rows_read) == ("succeeded", 18)
    assert world.served("K0", "K1", "K2") == [-6.0] * 3


def test_a_run_that_another_definition_left_is_not_continued_but_done_anew(
    world: Any, redefine: Callable[[], Catalog]
) -> None:
    """Its worker may have written after the new definition's first load; so that does not count either."""
    project, ledger = world.project, world.project.ledger
    Worker(project).run_due(at_hour(world, 2))
    now = at_hour(world, 4)
    left = ledger.claim(
        "weather",
        start=T0 + 2 * HOUR,
        end=now,
        at=now,
        by=GONE,
        kind="scheduled",
        catalog_digest=project.catalog.digest,
    )
    assert left is not None
    redefine()
    fresh = Project(world.root, settings=project.settings, name="flights", clock=world.clock)
    (report,) = Worker(fresh).run_due(now)
    assert (report.state, world.served("K0")) == ("succeeded", [-5.0])

    project.online.write("weather", project.offline.latest("weather", end=now), learned=now + HOUR / 60)
    assert world.served("K0") == [4.0], "as an old worker may before it dies, whose clock is a minute ahead"
    (report,) = Worker(fresh).run_due(at_hour(world, 5))
    assert (report.state, report.rows_read) == ("succeeded", 18)
    assert world.served("K0", "K1", "K2") == [-6.0] * 3
    assert "defined anew" in str(ledger.run(left.id).error)
    fresh.close()


@pytest.mark.parametrize("layout", ["feast", "packed"])
@pytest.mark.parametrize("killed", [False, True])
def test_no_value_of_the_earlier_definition_outlives_the_load_by_the_new_one(
    world: Any, redefine: Callable[[], Catalog], layout: str, killed: bool
) -> None:
    """Not the one that happened later than any of the new source, and not that of an entity which it does not have."""
    world.project.settings = world.project.settings.model_copy(update={"online_layout": layout})
    world.happened(("K0", T0 + 8.5 * HOUR, T0 + 2 * HOUR, 80.0, 1), ("K9", T0, T0, 90.0, 1), file="b")
    now = at_hour(world, 9)
    Worker(world.project).run_due(now)
    assert world.served("K0", "K1", "K9") == [80.0, 8.0, 90.0]
    redefine()
    world.project.reload()
    world.project.ledger.forget("weather", at=now)
    if killed:
        write, calls = world.project.online.write, []

        def dies(*arguments: Any, **named: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return write(*arguments, **named)

        world.project.online.write = dies
        with pytest.raises(KeyboardInterrupt):
            Worker(world.project).run_due(now)
        assert world.served("K0", "K9") == [None, None], "what was there is deleted, and what it hid not yet written"
        world.project.online.write = write
        now += HOUR / 2
        world.clock.set(now)
    reports = Worker(world.project).run_due(now)
    assert {report.state for report in reports} == {"succeeded"}
    assert world.served("K0", "K1", "K2", "K9") == [-9.0, -9.0, -9.0, None]
    assert not world.project.ledger.is_redefined("weather")


def test_what_is_loaded_again_deletes_nothing_where_definitions_are_the_same(world: Any) -> None:
    """Its history may have been cleared away meanwhile."""
    world.happened(("K0", T0, T0, 1.0, 1), file="a")
    world.happened(("K1", T0, T0, 2.0, 1), file="b")
    world.run(T0 + HOUR)
    (world.root / "data" / "weather" / "b.parquet").unlink()
    (report,) = world.run(T0 + 2 * HOUR, again=True)
    assert (report.state, report.rows_read) == ("succeeded", 1)
    assert world.served("K0", "K1") == [1.0, 2.0]


def test_progress_of_other_definitions_is_not_gone_on_from(world: Any) -> None:
    ledger = world.project.ledger
    claim = ledger.claim("weather", start=None, end=T0, at=T0, by="a", catalog_digest="old")
    ledger.save_progress(claim, "half", at=T0)
    taken = ledger.claim("weather", start=None, end=T0, at=T0 + HOUR, by="b", catalog_digest="old")
    assert (taken.progress, taken.by) == ("half", "b")
    taken = ledger.claim("weather", start=None, end=T0, at=T0 + 2 * HOUR, by="c", catalog_digest="new")
    assert (taken.progress, ledger.run(taken.id).progress) == (None, None)
    assert ledger.run(taken.id).catalog_digest == "new"
