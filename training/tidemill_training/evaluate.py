"""How good a model is on data later than everything it was fitted on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tidemill.errors import NotDefinedError
from tidemill.models.manifest import CalibrationBin
from tidemill.monitor.metrics import METRICS, evaluate

_GROUPS = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics by name, and predicted against observed in ten groups of equal size by ascending prediction."""

    metrics: dict[str, float]
    calibration: tuple[CalibrationBin, ...]


def rate(names: Iterable[str], outcomes: np.ndarray, predictions: np.ndarray) -> Evaluation:
    """Rate probabilities against 0/1 outcomes, both of shape (rows,). Raises NotDefinedError for an unknown metric."""
    return Evaluation(
        metrics=evaluate(check_metrics(names), outcomes, predictions), calibration=calibration(outcomes, predictions)
    )


def calibration(outcomes: np.ndarray, predictions: np.ndarray) -> tuple[CalibrationBin, ...]:
    order = np.argsort(predictions, kind="stable")
    return tuple(
        CalibrationBin(
            rows=len(group), predicted=float(predictions[group].mean()), observed=float(outcomes[group].mean())
        )
        for group in np.array_split(order, _GROUPS)
        if len(group)
    )


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises NotDefinedError before any work is done for one that is not a metric."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in METRICS:
            raise NotDefinedError("metric", name, METRICS)
    return names
