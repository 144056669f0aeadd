"""Rows of an interval that lands after its view has been loaded further: told, and loaded when asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from own_redis import closed_with_redis
from typer.testing import CliRunner

from tidemill.cli.main import app
from tidemill.clock import SimulatedClock
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, Source, ValueType, View
from tidemill.project import Project, open_project

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)
EXTRACT = """
from datetime import timedelta
import polars as pl
from tidemill.extract import extracts

@extracts(source="orders")
def orders(start, end):
    return pl.DataFrame({"day": [start.day], "count": [start.day * 10], "at": [start + timedelta(hours=3)]})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    (tmp_path / "extract.py").write_text(EXTRACT)
    project = open_project(tmp_path)
    SimulatedClock(project.state / "clock.json").set(START + 9 * DAY)
    project.catalogs.add(
        Catalog(
            project="shop",
            entities=(Entity(name="day", join_key="day", dtype=ValueType.INT64),),
            sources=(Source(name="orders", path="data/orders", timestamp_field="at"),),
            views=(
                View(
                    name="counts",
                    entities=("day",),
                    join_keys=("day",),
                    features=(Feature(name="count", dtype=ValueType.INT64),),
                    source="orders",
                ),
            ),
            services=(Service(name="counts_v1", projections=(Projection(view="counts", features=("count",)),)),),
        ),
        at=START,
    )
    with closed_with_redis(project):
        yield project


def run(project: Project, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--project", str(project.root)], env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    return done.output


def counts(project: Project) -> list[int | None]:
    read = project.online.read("counts_v1", [{"day": day} for day in (1, 2, 3)], at=project.clock.now())
    return list(read.values["count"])


def test_rows_that_land_behind_a_views_cut_off_are_told_and_loaded_when_asked(shop: Project) -> None:
    day_by_day = "extract", "--start", "2024-03-02", "--end", "2024-03-03"
    assert "passed over" not in run(shop, *day_by_day)
    run(shop, "materialize")
    assert counts(shop) == [None, 20, None]
    told = run(shop, "extract", "--start", "2024-03-01", "--end", "2024-03-04")
    assert "counts has been loaded further than 2024-03-01 03:00:00 already" in told
    run(shop, "materialize")
    assert counts(shop) == [None, 20, 30]
    assert "tidemill materialize --again --view counts" in told
    run(shop, "materialize", "--again", "--view", "counts")
    assert counts(shop) == [10, 20, 30]


def test_an_extraction_that_only_goes_on_warns_of_nothing(shop: Project) -> None:
    for day in (1, 2, 3):
        told = run(shop, "extract", "--start", "2024-03-01", "--end", f"2024-03-0{day + 1}")
        assert "loaded further" not in told
        run(shop, "materialize")
    assert counts(shop) == [10, 20, 30]
