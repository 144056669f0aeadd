"""How good the predictions turned out to be, against how good the model was when it was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.errors import TidemillError
from tidemill.models.artifact import read_manifest
from tidemill.monitor.labels import labelled_predictions
from tidemill.monitor.metrics import evaluate, loss_of_quality, standard_errors

if TYPE_CHECKING:
    from tidemill.project import Project

_SURE = 2.0  # standard errors beyond which a drop is not chance


@dataclass(frozen=True, kw_only=True)
class VersionPerformance:
    """One version in a window: `metrics` on its labelled predictions with their standard errors (NaN where a metric has
    no meaning), and `trained`, the metrics of its test part, empty where its artifact is gone."""

    version: int
    predictions: int
    labelled: int
    positives: int
    metrics: Mapping[str, float]
    errors: Mapping[str, float]
    trained: Mapping[str, float]

    def lost(self, metric: str) -> float:
        """How much worse the metric is than in training, in its own unit; NaN where that cannot be said."""
        if metric not in self.trained or metric not in self.metrics:
            return float("nan")
        return loss_of_quality(metric, self.trained[metric], self.metrics[metric])

    def dropped(self, metric: str, by: float) -> bool:
        """Worse by more than `by`, and by more than chance explains."""
        lost = self.lost(metric)
        return lost > by and lost > _SURE * self.errors.get(metric, math.inf)


@dataclass(frozen=True, kw_only=True)
class PerformanceReport:
    """Performance of predictions made in `[start, end)`, with the outcomes known by `end`. Newest version first."""

    model: str
    start: datetime
    end: datetime
    predictions: int
    labelled: int
    versions: tuple[VersionPerformance, ...]

    def of(self, version: int) -> VersionPerformance | None:
        return next((item for item in self.versions if item.version == version), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "predictions": self.predictions,
            "labelled": self.labelled,
            "versions": [
                {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(item).items()}
                for item in self.versions
            ],
        }


def performance(
    project: Project, model: str, *, at: datetime, window: timedelta = timedelta(days=7)
) -> PerformanceReport:
    """Metrics of the predictions made in the `window` before `at`, with the outcomes known by `at`.

    Raises NotDefinedError for an unknown model.
    """
    names = project.catalog.model(model).metrics
    rows = labelled_predictions(project, model, at=at, start=at - window, end=at)
    versions = sorted(rows["version"].unique().to_list(), reverse=True)
    return PerformanceReport(
        model=model,
        start=at - window,
        end=at,
        predictions=rows.height,
        labelled=rows.height - rows["label"].null_count(),
        versions=tuple(
            _of_version(rows.filter(pl.col("version") == version), version, names, _trained(project, model, version))
            for version in versions
        ),
    )


def _of_version(
    rows: pl.DataFrame, version: int, names: tuple[str, ...], trained: Mapping[str, float]
) -> VersionPerformance:
    answered = rows.filter(pl.col("label").is_not_null())
    labels, scores = answered["label"].to_numpy(), answered["prediction"].to_numpy()
    return VersionPerformance(
        version=version,
        predictions=rows.height,
        labelled=answered.height,
        positives=int(labels.sum()),
        metrics=evaluate(names, labels, scores),
        errors=standard_errors(names, labels, scores),
        trained={name: trained[name] for name in names if name in trained},
    )


def _trained(project: Project, model: str, version: int) -> Mapping[str, float]:
    """The test metrics in the artifact of a version that was ever deployed."""
    for deployment in project.deployments.history(model):
        if deployment.version == version:
            try:
                return read_manifest(deployment.folder(project.root))[0].metrics
            except TidemillError:
                return {}
    return {}
