"""The README's commands, the demo among them, and what must hold of the week it lived through."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from waiting import PATIENCE, PATIENT

import tidemill
from tidemill.metadata.reports import ReportRepository
from tidemill.models.artifact import read_manifest
from tidemill.monitor.parity_report import Outcome
from tidemill.project import Project

sys.path.insert(0, str(Path(__file__).parent))

from checkout import CHECKOUT, commands_of, copy_checkout, run, stop_everything

pytestmark = pytest.mark.slow
SERVICE, MODEL = "delay_v1", "arrival_delay"
FLIGHT = {
    "origin": "JFK",
    "destination": "LAX",
    "carrier": "B6",
    "route": "JFK-LAX",
    "tailnum": "N503JB",
    "distance": 2475,
    "scheduled_departure": "2013-10-08T13:00:00Z",
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A checkout in which every command of the README but the tests was run, and what that said."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    commands = [line for line in commands_of(CHECKOUT / "README.md") if line != "make test"]
    said = run("\n".join(commands), checkout)
    yield checkout / "feature_repo", said
    stop_everything(checkout)


@pytest.fixture(scope="module")
def project(lived: tuple[Path, str]) -> Iterator[Project]:
    opened = tidemill.open(lived[0])
    yield opened
    opened.close()


def newest(project: Project, kind: str) -> dict[str, Any]:
    found = ReportRepository(project.database, project.name).newest(kind, MODEL)
    assert found is not None
    return found.body


def test_the_demo_ends_with_a_table_a_newcomer_understands(lived: tuple[Path, str]) -> None:
    assert "Served values recomputed from history" in lived[1]
    assert "What to try next" in lived[1]


def test_the_model_is_good_enough_on_later_flights(project: Project) -> None:
    first = project.deployments.history(MODEL)[-1]
    manifest, _ = read_manifest(first.folder(project.root))

    assert manifest.metrics["roc_auc"] >= 0.70
    assert manifest.metrics["average_precision"] >= 0.50


def test_every_served_value_of_the_week_is_explained(project: Project) -> None:
    parity = newest(project, "parity")

    assert parity["compared"] > 200_000
    assert parity["differences"][Outcome.UNEXPLAINED.name.lower()] == 0
    assert parity["equal"] / parity["compared"] > 0.999


def test_every_scheduled_flight_of_the_week_was_predicted_once_and_labelled(project: Project) -> None:
    served = project.predictions.scan(MODEL)
    flights = project.offline.scan("scheduled_flights").filter(
        pl.col("request_time") >= served["at"].min(), pl.col("request_time") <= served["at"].max()
    )

    assert served["id"].n_unique() == served.height == flights.select(pl.len()).collect().item()
    assert newest(project, "monitor")["performance"]["versions"][0]["labelled"] > 0.9 * served.height


def test_the_challenger_met_the_champion_and_the_decision_gives_reasons(project: Project) -> None:
    decisions = [kept.body for kept in ReportRepository(project.database, project.name).list("retrain", MODEL)]

    # The worker of `up`, which other tests start in the same project, may have found nothing new to learn since.
    assert {decision["outcome"] for decision in decisions} & {"promoted", "refused"}
    assert all(decision["reasons"] for decision in decisions)


def test_feasts_own_sdk_reads_the_same_values_online_and_from_history(project: Project) -> None:
    script = f"""
import json, sys, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timezone
import pandas as pd
from feast import FeatureStore
store = FeatureStore({str(project.root)!r})
service = store.get_feature_service({SERVICE!r})
row = json.loads(sys.argv[1])
row["scheduled_departure"] = datetime.fromisoformat(row["scheduled_departure"].replace("Z", "+00:00"))
online = store.get_online_features(features=service, entity_rows=[row]).to_dict()
spine = pd.DataFrame([row | {{"event_timestamp": datetime(2013, 10, 5, 12, tzinfo=timezone.utc)}}])
history = store.get_historical_features(entity_df=spine, features=service).to_df()
online = {{name: column[0] for name, column in online.items()}}
history = json.loads(history.to_json(orient="records"))[0]
print(json.dumps({{"online": online, "history": history}}, default=str))
"""
    import json

    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(FLIGHT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 10,
        env=os.environ | PATIENT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    feast = json.loads(done.stdout.splitlines()[-1])
    ours = project.online.read(SERVICE, [FLIGHT], at=project.clock.now())
    spine = pl.DataFrame([FLIGHT | {"event_timestamp": "2013-10-05T12:00:00Z"}]).with_columns(
        pl.col("event_timestamp", "scheduled_departure").str.to_datetime(time_zone="UTC")
    )
    history = project.training_set(SERVICE, spine, mode="event", time_column="event_timestamp").collect()

    for name in ours.names:
        assert _same(feast["online"][name], ours.values[name][0]), name
        assert _same(feast["history"][name], history[name][0]), name


def _same(feast: Any, ours: Any) -> bool:
    if feast is None or ours is None:
        return feast is None and ours is None
    return feast == pytest.approx(ours, rel=1e-9)


def test_features_are_shown_as_they_are_and_how_old_they_are(lived: tuple[Path, str]) -> None:
    built = next(line for line in lived[1].splitlines() if line.startswith("│ built_year"))
    assert [cell.strip() for cell in built.strip("│").split("│")] == ["built_year", "1989", "PRESENT", "281d"]
