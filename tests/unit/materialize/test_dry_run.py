"""A dry run says what the run that follows does: row by row in the same words, and nothing is touched."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tidemill.definitions.catalog import CatchUp, Schedule
from tidemill.materialize.report import RunReport
from tidemill.schedule.preview import would_run
from tidemill.schedule.worker import Worker

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def facts(report: RunReport) -> dict[str, Any]:
    return vars(replace(report, state="", seconds=0.0))


def stored(world: Any) -> dict[bytes, Any]:
    resp = world.project.online.resp
    return {key: (resp.call("HGETALL", key), resp.call("TTL", key)) for key in resp.call("KEYS", "*")}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_dry_run_counts_what_the_run_then_does(world: Any, layout: str, seed: int) -> None:
    """New rows, late ones, corrections, rows that are stored already, older ones and null keys, in any mixture."""
    chance = random.Random(seed)
    world.project.settings = world.project.settings.model_copy(update={"online_layout": layout})
    kinds: set[str] = set()
    for step in range(1, 9):
        rows = []
        for _ in range(chance.randrange(1, 12)):
            event = T0 + chance.randrange(0, 10 * step) * HOUR / 10
            known = max(event, T0 + (step - 1) * HOUR) if chance.random() < 0.5 else event
            key = chance.choice(["JFK", "LGA", "EWR", None])
            rows.append((key, event, known, float(chance.randrange(2)), 0))
        world.happened(*rows, file=str(step))
        if chance.random() < 0.4:
            world.project.ledger.forget("weather", at=T0)
        world.clock.set(T0 + 10 * HOUR)
        before = stored(world)
        (told,) = world.run(T0 + step * HOUR, dry_run=True)
        assert stored(world) == before
        (done,) = world.run(T0 + step * HOUR)
        assert facts(told) == facts(done)
        kinds |= {name for name, value in vars(done).items() if name.startswith("rows_") and value}
    assert {"rows_read", "rows_written", "rows_skipped"} <= kinds


def test_of_windows_and_of_what_is_loaded_a_dry_run_says_so(world: Any) -> None:
    world.happened(("JFK", T0, T0, 1.0, 1))
    world.run(T0 + HOUR)
    assert [report.state for report in world.run(T0 + HOUR, dry_run=True)] == ["current"]
    (world.root / "data" / "weather" / "a.parquet").unlink()
    (told,) = world.run(T0 + 2 * HOUR, dry_run=True)
    assert (told.state, told.end) == ("failed", T0 + 2 * HOUR)
    assert "is empty" in str(told.error)


def test_every_tick_that_is_due_is_told_with_its_rows(world: Any) -> None:
    world.happened(*(("JFK", T0 + hour * HOUR, T0 + hour * HOUR, float(hour), hour) for hour in range(9)))
    catalog = world.project.catalog
    every = replace(catalog.view("weather"), schedule=Schedule(cron="0 * * * *", catch_up=CatchUp.ALL))
    world.project.catalogs.add(replace(catalog, views=(every,)), at=T0)
    world.project.reload()
    Worker(world.project).run_due(T0 + 3 * HOUR)
    later = T0 + 6 * HOUR
    told = [(report.end, report.rows_read, report.rows_written) for report in would_run(world.project, later)]
    world.clock.set(later)
    done = [(report.end, report.rows_read, report.rows_written) for report in Worker(world.project).run_due(later)]
    assert told == done == [(T0 + hour * HOUR, 1, 1) for hour in (4, 5, 6)]
    assert list(would_run(world.project, later)) == []
