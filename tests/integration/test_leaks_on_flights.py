"""`tidemill leaks` on the reference project: silent on the honest features, loud on a planted one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import tidemill
from tidemill.clock import ManualClock
from tidemill.definitions.catalog import Entity, Feature, Source, View
from tidemill.definitions.types import ValueType
from tidemill.offline.leaks import find_leaks
from tidemill.offline.store import OfflineStore
from tidemill.project import Project
from tidemill_training.leakage import find_model_leaks
from tidemill_training.spine import build_spine

START, NOW = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 15, tzinfo=UTC)
MODEL = "arrival_delay"


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The reference project with the first two weeks of 2013."""
    from tidemill.extract import extract
    from tidemill.feast.apply import apply

    root = tmp_path_factory.mktemp("flights") / "feature_repo"
    ignored = shutil.ignore_patterns("data", ".tidemill", "__pycache__")
    shutil.copytree(Path(__file__).parents[2] / "feature_repo", root, ignore=ignored)
    project = tidemill.open(root, clock=ManualClock(NOW))
    apply(project, at=NOW)
    extract(project, start=START, end=NOW)
    yield project
    project.close()


def test_no_honest_feature_is_suspected(flights: Project):
    assert find_model_leaks(flights, MODEL, sample=10_000) == []


def test_the_outcome_planted_as_a_feature_is_named(flights: Project):
    """What became of each flight, written down as if it had been known a moment before it was asked about."""
    definition = flights.catalog.model(MODEL)
    spine = build_spine(flights, definition, None, NOW)
    id_column, time_column, label = definition.spine.id_column, definition.spine.time_column, definition.label.column
    folder = flights.root / "data" / "planted"
    folder.mkdir()
    pl.DataFrame(
        {
            id_column: spine[id_column],
            "event_time": spine[time_column].dt.offset_by("-1s"),
            "outcome_so_far": spine[label].cast(pl.Float64),
        }
    ).write_parquet(folder / "all.parquet")
    planted = View(
        name="planted",
        entities=("flight",),
        join_keys=(id_column,),
        features=(Feature(name="outcome_so_far", dtype=ValueType.DOUBLE),),
        source="planted",
    )
    catalog = replace(
        flights.catalog,
        entities=(*flights.catalog.entities, Entity(name="flight", join_key=id_column, dtype=ValueType.STRING)),
        sources=(*flights.catalog.sources, Source(name="planted", path="data/planted", timestamp_field="event_time")),
        views=(*flights.catalog.views, planted),
    )
    store = OfflineStore(root=flights.root, catalog=catalog)
    found = find_leaks(store, ["planted:outcome_so_far"], spine, at=NOW, label=label, time_column=time_column)
    assert {(leak.feature, leak.kind) for leak in found} == {("outcome_so_far", "too_predictive")}
    assert found[0].size == 1.0
