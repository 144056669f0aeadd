"""A real model artifact for the small project: a few trees on two features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from manifests import manifest_of
from own_redis import closed_with_redis
from sklearn.ensemble import HistGradientBoostingClassifier
from small_live import open_with_redis, weather
from small_project import NOW

from tidemill.definitions.types import ValueType
from tidemill.models.artifact import ModelArtifact
from tidemill.models.encoding import ModelFeature
from tidemill.models.manifest import Manifest
from tidemill.project import Project


def make_artifact(version: int, features: tuple[str, ...] = ("temp", "hours")) -> ModelArtifact:
    """A model that says late where it is warm; each version is a little surer than the one before."""
    random = np.random.default_rng(version)
    matrix = random.normal(15, 10, (400, len(features)))
    label = (matrix[:, 0] + random.normal(0, 10.0 / version, 400) > 15).astype(np.int8)
    estimator = HistGradientBoostingClassifier(max_iter=5 * version, random_state=0).fit(matrix, label)
    return ModelArtifact(manifest=_manifest(version, features), estimator=estimator)


def promote(
    project: Project, version: int, *, artifact: ModelArtifact | None = None, at: datetime = NOW, model: str = "delay"
) -> ModelArtifact:
    folder = Path("models") / f"{model}-{version}-{len(project.deployments.history(model))}"
    saved = (artifact or make_artifact(version)).save(project.root / folder)
    project.deployments.set(
        model, alias="champion", version=version, artifact=str(folder), digest=saved.digest, reason="test", at=at
    )
    return saved


@contextmanager
def promoted_with_redis(root: Path, **settings: Any) -> Iterator[Project]:
    """The small project with the weather of one airport and a champion; its Redis ends with it."""
    with closed_with_redis(open_with_redis(root, **settings)) as opened:
        opened.online.write("weather", weather([("JFK", 1, 21.5)]))
        promote(opened, 1)
        yield opened


def _manifest(version: int, features: tuple[str, ...]) -> Manifest:
    return manifest_of(
        pl.DataFrame({name: [1.0, 2.0, 3.0] for name in features}),
        tuple(ModelFeature(name=name, dtype=ValueType.DOUBLE) for name in features),
        at=NOW,
        name="delay",
        version=version,
        service="delay_v1",
        metrics={"roc_auc": 0.8},
    )
