"""A small model artifact on real scikit-learn parts."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from manifests import manifest_of
from sklearn.ensemble import HistGradientBoostingClassifier

from tidemill.definitions.types import ValueType
from tidemill.models.artifact import ModelArtifact
from tidemill.models.encoding import ModelFeature
from tidemill.models.manifest import CalibrationBin, Manifest

FEATURES = (
    ModelFeature(name="mean_delay", dtype=ValueType.DOUBLE),
    ModelFeature(name="flights", dtype=ValueType.INT64),
    ModelFeature(name="weekend", dtype=ValueType.BOOL),
    ModelFeature(name="carrier", dtype=ValueType.STRING, categories=("B6", "AA", "UA")),
)


def make_frame(rows: int = 500, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "mean_delay": random.normal(10, 5, rows),
            "flights": random.integers(0, 30, rows),
            "weekend": random.random(rows) < 0.3,
            "carrier": random.choice(["B6", "AA", "UA", "never seen"], rows),
        }
    ).with_columns(pl.when(pl.int_range(pl.len()) % 7 != 0).then(pl.col(name)) for name in ("mean_delay", "flights"))


def make_manifest(frame: pl.DataFrame) -> Manifest:
    return manifest_of(
        frame,
        FEATURES,
        at=datetime(2013, 1, 1, tzinfo=UTC),
        name="arrival_delay",
        service="delay_v1",
        seed=7,
        iterations=12,
        metrics={"roc_auc": 0.7},
        calibration=(CalibrationBin(rows=10, predicted=0.2, observed=0.25),),
        libraries={"scikit-learn": "1.9.1"},
        trained_at=datetime(2013, 10, 1, 12, 30, 0, 250, tzinfo=UTC),
    )


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    return make_frame()


@pytest.fixture(scope="session")
def artifact(frame: pl.DataFrame) -> ModelArtifact:
    manifest = make_manifest(frame)
    matrix = manifest.encoding.matrix(frame)
    label = (np.nan_to_num(matrix[:, 0]) > 10).astype(np.int8)
    estimator = HistGradientBoostingClassifier(max_iter=12, random_state=0).fit(matrix, label)
    return ModelArtifact(manifest=manifest, estimator=estimator)
