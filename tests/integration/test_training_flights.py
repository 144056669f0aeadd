"""The reference model on real flights: as good as honest features allow, and a planted leak that shows at once.

The leak: arrival delays recorded as if they had been known at the scheduled departure. A model trained on them promises
more than it can keep, because no serving path could ever have returned those values.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import tidemill
from tidemill.clock import ManualClock, to_micros
from tidemill.extract import extract
from tidemill.feast.compile import compile_repository
from tidemill.monitor.parity import verify
from tidemill.monitor.parity_report import Outcome, ParityReport
from tidemill.online.embedded import EmbeddedRedis
from tidemill.predictions.log import PredictionRecord
from tidemill.project import Project
from tidemill_training.dataset import add_features, find_rows
from tidemill_training.evaluate import rate
from tidemill_training.reproduce import ReproductionReport, reproduce
from tidemill_training.train import TrainedVersion, train

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
SINCE = datetime(2012, 12, 31, tzinfo=UTC)
OCTOBER = datetime(2013, 10, 1, tzinfo=UTC)
SERVED_AT = datetime(2013, 9, 12, 21, 30, 1, tzinfo=UTC)  # a stormy evening
MODEL = "arrival_delay"

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happened: trained honestly and on the leak, served honestly, verified against either history."""

    honest: TrainedVersion
    reproduced: ReproductionReport
    parity: ParityReport
    leaky: TrainedVersion
    leaky_in_service: dict[str, float]
    leaky_parity: ParityReport


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("flights") / "feature_repo"
    shutil.copytree(REPOSITORY, root, ignore=shutil.ignore_patterns("data", ".tidemill", "__pycache__"))
    project = tidemill.open(root, clock=ManualClock(OCTOBER))
    project.catalogs.add(compile_repository(root), at=SINCE)
    extract(project, start=SINCE, end=OCTOBER)
    try:
        yield _live(project)
    finally:
        project.close()
        EmbeddedRedis(project.redis_folder).stop()


def _live(project: Project) -> Story:
    honest = train(project, MODEL)
    reproduced = reproduce(project, f"{MODEL}@champion")
    vectors = _test_vectors(project)
    with _planted_leak(project):
        leaky = train(project, MODEL)
    _serve(project)
    parity = verify(project)
    with _planted_leak(project):
        leaky_parity = verify(project)
    promised = rate(leaky.metrics, vectors["late"].to_numpy(), leaky.artifact.predict(vectors))
    return Story(
        honest=honest,
        reproduced=reproduced,
        parity=parity,
        leaky=leaky,
        leaky_in_service=promised.metrics,
        leaky_parity=leaky_parity,
    )


def _serve(project: Project) -> None:
    """Bring the online store to an evening in September, as events pushed until then leave it, and log its answers."""
    clock = project.clock
    assert isinstance(clock, ManualClock)
    clock.set(SERVED_AT - timedelta(seconds=1))
    project.materialize()
    for view in project.catalog.views:
        if view.is_windowed:
            project.online.rebuild_tiles(view.name, offline=project.offline, at=clock.now())
    clock.set(SERVED_AT)
    flights = project.offline.scan("scheduled_flights").filter(
        pl.col("request_time").is_between(SERVED_AT - timedelta(minutes=45), SERVED_AT)
    )
    rows = flights.select("origin", "destination", "carrier", "route", "tailnum", "scheduled_departure", "distance")
    asked = rows.collect().to_dicts()
    result = project.online.read("delay_v1", asked, at=SERVED_AT)
    project.predictions.append(
        [
            PredictionRecord(
                prediction_id=f"p{place}",
                model=MODEL,
                version=1,
                service="delay_v1",
                catalog_digest=project.catalog.digest,
                at=to_micros(SERVED_AT),
                id=None,
                keys=json.dumps({key: row[key] for key in ("origin", "destination", "carrier", "route", "tailnum")}),
                request=json.dumps(
                    {"scheduled_departure": row["scheduled_departure"].isoformat(), "distance": row["distance"]}
                ),
                features=json.dumps({name: result.values[name][place] for name in result.names}),
                statuses=json.dumps({name: result.statuses[name][place].name for name in result.names}),
                prediction=0.5,
            )
            for place, row in enumerate(asked)
        ]
    )
    clock.set(OCTOBER)


def _test_vectors(project: Project) -> pl.DataFrame:
    """What serving would have answered over the test part, with the outcomes."""
    definition = project.catalog.model(MODEL)
    rows = find_rows(project.offline, project.catalog, definition, start=None, until=OCTOBER)
    dataset = add_features(project.offline, rows)
    return dataset.frame[dataset.parts.later]


@contextmanager
def _planted_leak(project: Project) -> Iterator[None]:
    """Meanwhile every arrival's delay is recorded as known at its scheduled departure."""
    folder = project.root / "data" / "arrival_events"
    planned = project.offline.scan("scheduled_flights").select("flight_id", "scheduled_departure")
    arrivals = project.offline.scan("arrival_events").join(planned, on="flight_id")
    leaked = arrivals.with_columns(
        event_time=pl.col("scheduled_departure"), known_time=pl.col("scheduled_departure")
    ).drop("scheduled_departure")
    rows = leaked.sort("event_time").collect()
    honest = folder.rename(folder.with_name("honest_arrivals"))
    folder.mkdir()
    rows.write_parquet(folder / "leaked.parquet")
    project.__dict__.pop("offline")
    try:
        yield
    finally:
        shutil.rmtree(folder)
        honest.rename(folder)
        project.__dict__.pop("offline", None)


def test_the_reference_model_is_as_good_as_honest_features_allow(story: Story):
    metrics = story.honest.metrics
    assert 0.70 <= metrics["roc_auc"] <= 0.79
    assert 0.50 <= metrics["average_precision"] <= 0.59
    assert story.honest.promoted


def test_what_it_predicts_comes_true_as_often_as_it_says(story: Story):
    for group in story.honest.artifact.manifest.calibration:
        assert group.observed == pytest.approx(group.predicted, abs=0.08)


def test_the_reference_model_is_reproduced_to_the_last_bit(story: Story):
    assert story.reproduced.check().largest_difference == 0.0


def test_what_was_served_is_what_honest_history_gives(story: Story):
    assert story.parity.total(Outcome.UNEXPLAINED) == 0
    assert story.parity.total(Outcome.EQUAL) > 1_000


def test_a_planted_leak_promises_more_than_any_honest_model(story: Story):
    assert story.leaky.metrics["roc_auc"] > story.honest.metrics["roc_auc"] + 0.01
    assert story.leaky.metrics["average_precision"] > story.honest.metrics["average_precision"] + 0.02


def test_a_model_trained_on_the_leak_does_not_keep_its_promise_in_service(story: Story):
    assert story.leaky_in_service["roc_auc"] < story.leaky.metrics["roc_auc"] - 0.01
    assert story.leaky_in_service["average_precision"] < story.leaky.metrics["average_precision"] - 0.02


def test_verify_names_the_leaked_features_as_impossible_to_serve(story: Story):
    unexplained = {f.view for f in story.leaky_parity.features if f.count(Outcome.UNEXPLAINED)}
    assert unexplained == {"origin_arrivals", "carrier_arrivals", "destination_arrivals", "route_arrivals"}
    assert story.leaky_parity.total(Outcome.UNEXPLAINED) > 100
