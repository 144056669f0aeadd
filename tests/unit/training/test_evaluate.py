from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tidemill.errors import NotDefinedError
from tidemill_training.evaluate import check_metrics, rate

RANDOM = np.random.default_rng(0)
PREDICTIONS = np.round(RANDOM.beta(1, 3, 5_000), 2)
OUTCOMES = (RANDOM.random(5_000) < PREDICTIONS).astype(np.int8)
NAMES = ("roc_auc", "average_precision", "log_loss", "brier")


def test_metrics_are_those_of_scikit_learn():
    found = rate(NAMES, OUTCOMES, PREDICTIONS).metrics
    clipped = np.clip(PREDICTIONS, 1e-15, 1 - 1e-15)
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(OUTCOMES, PREDICTIONS), abs=1e-12)
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(OUTCOMES, PREDICTIONS))
    assert found["log_loss"] == pytest.approx(reference.log_loss(OUTCOMES, clipped), rel=1e-6)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(OUTCOMES, PREDICTIONS))


def test_predictions_that_come_true_as_often_as_they_say_are_calibrated():
    honest = rate(NAMES, OUTCOMES, PREDICTIONS).calibration
    assert all(abs(group.predicted - group.observed) < 0.06 for group in honest)
    too_high = rate(NAMES, OUTCOMES, np.clip(PREDICTIONS + 0.3, 0, 1)).calibration
    assert all(group.predicted - group.observed > 0.2 for group in too_high)


def test_calibration_covers_every_row_once_in_ascending_groups():
    groups = rate(NAMES, OUTCOMES, PREDICTIONS).calibration
    assert sum(group.rows for group in groups) == 5_000
    assert [group.predicted for group in groups] == sorted(group.predicted for group in groups)


def test_an_unknown_metric_is_named_with_what_was_meant():
    with pytest.raises(NotDefinedError, match="Did you mean 'log_loss'"):
        check_metrics(["roc_auc", "logloss"])
