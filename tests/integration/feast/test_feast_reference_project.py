"""The flights of the reference project with nothing but Feast: its command line and its SDK."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from own_redis import closed_with_redis
from waiting import PATIENT

import tidemill
from tidemill.extract import extract
from tidemill.feast.apply import apply

REFERENCE = Path(__file__).parents[3] / "feature_repo"
NOW = datetime(2013, 5, 5, 15, 30, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the reference project with ten days of data, at the afternoon of the fifth of May."""
    root = tmp_path_factory.mktemp("reference") / "feature_repo"
    shutil.copytree(REFERENCE, root, ignore=shutil.ignore_patterns("data", ".tidemill", "__pycache__"))
    project = tidemill.open(root)
    apply(project, at=NOW)
    extract(project, start=datetime(2013, 4, 26, tzinfo=UTC), end=datetime(2013, 5, 6, tzinfo=UTC))
    project.clock.set(NOW)
    with closed_with_redis(project):
        yield root


def feast(root: Path, *arguments: str, cwd: Path) -> str:
    """Feast's own command, run from another folder."""
    command = [sys.executable, "-m", "feast.cli.cli", "-c", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, env=os.environ | PATIENT)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def test_feasts_command_line_applies_and_materializes(flights: Path, tmp_path: Path) -> None:
    feast(flights, "apply", cwd=tmp_path)
    said = feast(flights, "materialize", "2013-04-26T00:00:00", "2013-05-05T15:30:00", cwd=tmp_path)
    project = tidemill.open(flights)

    assert "origin_departures" in said
    assert project.ledger.last_cutoff("weather") == NOW, "served-mode training sets hear of it"
    found = project.online.read_features(["weather:temp"], [{"origin": "JFK"}], at=NOW)
    assert found.statuses["temp"][0].name == "PRESENT"
    assert list(tmp_path.iterdir()) == [], "nothing is left where the command was run"


def test_feasts_sdk_reads_the_same_online_and_from_history(flights: Path) -> None:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(flights))
    store.materialize(start_date=datetime(2013, 4, 26, tzinfo=UTC), end_date=NOW)
    spine = _flights_asked_about(flights)
    service = store.get_feature_service("delay_v1")
    history = store.get_historical_features(entity_df=spine, features=service).to_polars()
    rows = spine.drop("event_timestamp", "flight_id").to_dicts()
    online: dict[str, list[Any]] = store.get_online_features(features=service, entity_rows=rows).to_dict()

    names = [name for name in history.columns if name not in spine.columns]
    assert len(names) == 44
    assert {name: online[name] for name in names} == {name: history[name].to_list() for name in names}


def test_feast_and_tidemill_answer_alike(flights: Path) -> None:
    from feast import FeatureStore

    project = tidemill.open(flights)
    store = FeatureStore(repo_path=str(flights))
    store.materialize(start_date=datetime(2013, 4, 26, tzinfo=UTC), end_date=NOW)
    rows = _flights_asked_about(flights).drop("event_timestamp", "flight_id").to_dicts()
    ours = project.online.read("delay_v1", rows, at=NOW)
    theirs = store.get_online_features(features=store.get_feature_service("delay_v1"), entity_rows=rows).to_dict()

    assert {name: ours.values[name] for name in ours.names} == {name: theirs[name] for name in ours.names}


def _flights_asked_about(root: Path) -> pl.DataFrame:
    spine = pl.read_parquet(root / "data" / "scheduled_flights").filter(pl.col("tailnum").is_not_null())
    return spine.sort("flight_id").head(50).with_columns(event_timestamp=pl.lit(NOW)).drop("request_time")
