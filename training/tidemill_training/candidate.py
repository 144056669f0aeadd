"""A model fitted and rated on one dataset, not yet registered: what training makes and reproduction makes again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as version_of
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog
from tidemill.models.artifact import ModelArtifact
from tidemill.models.baseline import describe, describe_all
from tidemill.models.manifest import DatasetRecord, Manifest
from tidemill_training.dataset import MODE, Dataset
from tidemill_training.evaluate import Evaluation, rate
from tidemill_training.fit import Fitted, fit

_LIBRARIES = ("tidemill", "scikit-learn", "numpy", "scipy", "polars", "skops")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """`predictions` are for the test part, float64 in the dataset's order."""

    dataset: Dataset
    fitted: Fitted
    predictions: np.ndarray
    evaluation: Evaluation

    @property
    def test_frame(self) -> pl.DataFrame:
        return self.dataset.frame[self.dataset.parts.later]

    @property
    def test_outcomes(self) -> np.ndarray:
        return self.dataset.outcomes[self.dataset.parts.later]


def make_candidate(make: Callable[[], Any], dataset: Dataset, *, metrics: Sequence[str]) -> Candidate:
    """Fit on the dataset's first part and rate on its last. Raises what `fit` raises."""
    fitted = fit(make, dataset, seed=dataset.model.seed)
    predictions = _positive(fitted.estimator, fitted.matrix[dataset.parts.later])
    outcomes = dataset.outcomes[dataset.parts.later]
    return Candidate(
        dataset=dataset, fitted=fitted, predictions=predictions, evaluation=rate(metrics, outcomes, predictions)
    )


def to_artifact(candidate: Candidate, catalog: Catalog, *, version: int, run_id: str, at: datetime) -> ModelArtifact:
    """The candidate as an artifact that can be saved."""
    dataset, fitted = candidate.dataset, candidate.fitted
    model = dataset.model
    manifest = Manifest(
        name=model.name,
        version=version,
        service=model.service,
        features=fitted.encoding.features,
        label=model.label.column,
        catalog_digest=catalog.digest,
        dataset=record_of(dataset),
        estimator=model.estimator,
        estimator_text=" ".join(repr(fitted.estimator).split()),
        seed=model.seed,
        iterations=fitted.iterations,
        metrics=candidate.evaluation.metrics,
        calibration=candidate.evaluation.calibration,
        predictions_digest=predictions_digest(candidate.predictions),
        baseline=describe_all(dataset.vectors),
        prediction_baseline=describe(pl.Series("prediction", candidate.predictions)),
        libraries={name: version_of(name) for name in _LIBRARIES},
        trained_at=at,
        run_id=run_id,
        files={},
    )
    return ModelArtifact(manifest=manifest, estimator=fitted.estimator)


def kept_predictions(candidate: Candidate) -> pl.DataFrame:
    """The test part's ids, request times, labels and predictions, to be kept with the artifact."""
    model = candidate.dataset.model
    kept = candidate.test_frame.select(model.spine.id_column, model.spine.time_column, model.label.column)
    return kept.with_columns(prediction=pl.Series(candidate.predictions))


def record_of(dataset: Dataset) -> DatasetRecord:
    parts = dataset.parts
    return DatasetRecord(
        digest=dataset.digest,
        mode=MODE,
        start=dataset.start,
        validation_start=parts.validation_start,
        test_start=parts.test_start,
        until=dataset.until,
        fit_rows=parts.validation,
        validation_rows=parts.test - parts.validation,
        test_rows=parts.rows - parts.test,
        positive_share=float(dataset.outcomes.mean()),
    )


def predictions_digest(predictions: np.ndarray) -> str:
    """SHA-256 of the predictions' bits."""
    return hashlib.sha256(np.ascontiguousarray(predictions, dtype="<f8").tobytes()).hexdigest()


def _positive(estimator: Any, matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(estimator.predict_proba(matrix)[:, 1], dtype=np.float64)
