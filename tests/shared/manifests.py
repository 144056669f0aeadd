"""A manifest for a model that a test makes by itself: whatever the test says nothing of has a value that fits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl

from tidemill.definitions.catalog import CodeReference
from tidemill.models.baseline import describe, describe_all
from tidemill.models.encoding import ModelFeature
from tidemill.models.manifest import DatasetRecord, Manifest


def manifest_of(frame: pl.DataFrame, features: tuple[ModelFeature, ...], *, at: datetime, **said: Any) -> Manifest:
    """The manifest of a model that reads `features` and was fitted on `frame`, all of it at one instant."""
    plain = Manifest(
        name="late",
        version=1,
        service="s",
        features=features,
        label="late",
        catalog_digest="c" * 64,
        dataset=DatasetRecord(
            digest="d" * 64,
            mode="served",
            start=at,
            validation_start=at,
            test_start=at,
            until=at,
            fit_rows=1,
            validation_rows=2,
            test_rows=3,
            positive_share=0.25,
        ),
        estimator=CodeReference(module="estimators", qualname="make", digest="e" * 64),
        estimator_text="HistGradientBoostingClassifier()",
        seed=0,
        iterations=None,
        metrics={},
        calibration=(),
        predictions_digest="",
        baseline=describe_all(frame.select(feature.name for feature in features)),
        prediction_baseline=describe(pl.Series("prediction", [0.1, 0.2, 0.9])),
        libraries={},
        trained_at=at,
        files={},
    )
    return replace(plain, **said)
