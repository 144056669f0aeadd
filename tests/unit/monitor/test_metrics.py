"""Metrics agree with scikit-learn's, ties and one-sided samples included."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peers

from tidemill.errors import NotDefinedError
from tidemill.monitor.metrics import evaluate, loss_of_quality, standard_errors

ALL = ("roc_auc", "average_precision", "log_loss", "brier")


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=60))
def test_every_metric_is_the_one_scikit_learn_computes(rows: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score / 20 for _, score in rows])
    found = evaluate(ALL, labels, scores)
    assert found["brier"] == pytest.approx(peers.brier_score_loss(labels, scores), abs=1e-12)
    assert found["log_loss"] == pytest.approx(peers.log_loss(labels, scores, labels=[0, 1]), rel=1e-9)
    if labels.any():
        assert found["average_precision"] == pytest.approx(peers.average_precision_score(labels, scores), abs=1e-12)
    if labels.any() and not labels.all():
        assert found["roc_auc"] == pytest.approx(peers.roc_auc_score(labels, scores), abs=1e-12)


def test_a_metric_without_meaning_is_not_a_number() -> None:
    found = evaluate(ALL, np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["average_precision"])
    assert all(math.isnan(value) for value in evaluate(ALL, np.array([]), np.array([])).values())


def test_the_standard_error_of_an_auc_is_near_its_closed_form() -> None:
    chance = np.random.default_rng(1)
    labels = chance.integers(0, 2, 4_000)
    scores = chance.random(4_000)
    # Without skill the variance is (n + 1) / (12 * positives * negatives).
    expected = math.sqrt(4_001 / (12 * labels.sum() * (4_000 - labels.sum())))
    assert standard_errors(["roc_auc"], labels, scores)["roc_auc"] == pytest.approx(expected, rel=0.3)


def test_losing_quality_is_positive_whichever_way_a_metric_points() -> None:
    assert loss_of_quality("roc_auc", 0.8, 0.7) == pytest.approx(0.1)
    assert loss_of_quality("log_loss", 0.4, 0.5) == pytest.approx(0.1)


def test_an_unknown_metric_is_named_with_what_was_meant() -> None:
    with pytest.raises(NotDefinedError, match="roc_auc"):
        evaluate(["rocauc"], np.array([0, 1]), np.array([0.0, 1.0]))
