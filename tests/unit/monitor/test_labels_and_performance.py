"""Labels join their predictions as they become known, and tell how good these were."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidemill.errors import NotDefinedError
from tidemill.monitor.labels import labelled_predictions
from tidemill.monitor.performance import performance

Minutes = Callable[[float], datetime]
NOTHING: dict[str, Any] = {"temp": None, "gusts": None, "delay": None}


def test_a_label_joins_its_prediction_from_when_it_is_known(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(10), id="a", **NOTHING)
    airports.serve(minutes(20), id="b", **NOTHING)
    airports.serve(minutes(25), **NOTHING)
    airports.add_outcomes([("a", 1, minutes(60)), ("b", 0, minutes(90)), ("c", 1, minutes(50))])
    assert labelled_predictions(airports.project, "late", at=minutes(59))["label"].to_list() == [None, None, None]
    assert labelled_predictions(airports.project, "late", at=minutes(60))["label"].to_list() == [1, None, None]
    assert labelled_predictions(airports.project, "late", at=minutes(90))["label"].to_list() == [1, 0, None]


def test_a_corrected_outcome_counts_from_when_the_correction_is_known(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(10), id="a", **NOTHING)
    airports.add_outcomes([("a", 1, minutes(60)), ("a", 0, minutes(90))])
    assert labelled_predictions(airports.project, "late", at=minutes(80))["label"].to_list() == [1]
    assert labelled_predictions(airports.project, "late", at=minutes(90))["label"].to_list() == [0]


def test_two_predictions_of_one_row_both_get_its_label(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(10), id="a", **NOTHING)
    airports.serve(minutes(11), id="a", **NOTHING)
    airports.add_outcomes([("a", 1, minutes(60))])
    assert labelled_predictions(airports.project, "late", at=minutes(61))["label"].to_list() == [1, 1]


def test_ids_and_labels_may_be_floats_as_pandas_writes_them(airports: Any, minutes: Minutes) -> None:
    for name in ("1", "2", "3"):
        airports.serve(minutes(10), id=name, **NOTHING)
    known = [minutes(60)] * 4
    outcomes = {"id": [1.0, 2.0, 3.0, None], "late": [1.0, 0.0, float("nan"), 1.0]}
    frame = pl.DataFrame({"origin": ["JFK"] * 4, "event_time": known, "known_time": known, **outcomes})
    frame.write_parquet(airports.project.root / "outcomes" / "rows.parquet")
    assert labelled_predictions(airports.project, "late", at=minutes(60))["label"].to_list() == [1, 0, None]
    assert performance(airports.project, "late", at=minutes(60)).versions[0].positives == 1


def serve_many(airports: Any, minutes: Minutes, *, skill: float, version: int = 1, rows: int = 400) -> None:
    chance = np.random.default_rng(version)
    labels = chance.integers(0, 2, rows)
    scores = np.clip(chance.random(rows) * (1 - skill) + labels * skill, 0.001, 0.999)
    names = [f"{version}-{row}" for row in range(rows)]
    for name, score in zip(names, scores.tolist(), strict=True):
        airports.serve(minutes(10), id=name, prediction=score, version=version, **NOTHING)
    airports.add_outcomes((name, int(label), minutes(60)) for name, label in zip(names, labels, strict=True))


def champion_data() -> pl.DataFrame:
    return pl.DataFrame({"temp": [1.0, 2.0], "gusts": [1, 2], "delay": [0.0, 1.0], "prediction": [0.2, 0.4]})


def test_performance_is_that_of_each_version_against_its_own_training(airports: Any, minutes: Minutes) -> None:
    airports.promote(champion_data(), metrics={"roc_auc": 0.99, "brier": 0.1}, version=2)
    serve_many(airports, minutes, skill=0.9, version=1)
    serve_many(airports, minutes, skill=0.1, version=2)
    report = performance(airports.project, "late", at=minutes(120), window=timedelta(hours=3))
    assert [item.version for item in report.versions] == [2, 1]
    newest, oldest = report.versions
    assert (report.predictions, report.labelled, newest.labelled) == (800, 800, 400)
    assert newest.metrics["roc_auc"] < 0.8 < oldest.metrics["roc_auc"]
    assert newest.lost("roc_auc") == pytest.approx(0.99 - newest.metrics["roc_auc"])
    assert newest.dropped("roc_auc", by=0.03)
    assert oldest.trained == {}
    assert not oldest.dropped("roc_auc", by=0.03)


def test_a_drop_within_chance_is_not_a_drop(airports: Any, minutes: Minutes) -> None:
    airports.promote(champion_data(), metrics={"roc_auc": 0.62})
    serve_many(airports, minutes, skill=0.05, rows=40)
    newest = performance(airports.project, "late", at=minutes(120)).versions[0]
    assert newest.lost("roc_auc") < 2 * newest.errors["roc_auc"]
    assert not newest.dropped("roc_auc", by=0.0)


def test_without_outcomes_there_is_a_count_and_no_metric(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(10), id="a", **NOTHING)
    report = performance(airports.project, "late", at=minutes(120))
    assert (report.predictions, report.labelled) == (1, 0)
    assert np.isnan(report.versions[0].metrics["roc_auc"])


def test_an_unknown_model_is_refused(airports: Any, minutes: Minutes) -> None:
    with pytest.raises(NotDefinedError):
        performance(airports.project, "none", at=minutes(1))
