"""What a model artifact says about itself: enough to serve it, to watch it and to rebuild it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any

from tidemill.definitions.catalog import CodeReference
from tidemill.definitions.types import ValueType
from tidemill.models.baseline import Baseline, baseline_from
from tidemill.models.encoding import Encoding, ModelFeature

FORMAT = 1
TREES = "trees.npz"


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """The training set a model came from. All instants UTC.

    The spine holds request times in `[start, until)` whose label was known before `until`. Rows up to
    `validation_start` were fitted on, rows after it and up to `test_start` stopped the fitting early, the rest
    is the test.
    `digest` is over the content: spine, labels and features.
    """

    digest: str
    mode: str
    start: datetime
    validation_start: datetime
    test_start: datetime
    until: datetime
    fit_rows: int
    validation_rows: int
    test_rows: int
    positive_share: float

    @property
    def rows(self) -> int:
        return self.fit_rows + self.validation_rows + self.test_rows


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Of `rows` test rows with similar predictions: what was predicted and what came true, both as mean."""

    rows: int
    predicted: float
    observed: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A model version: what it reads, where it came from, how good it was and what its data looked like.

    `metrics` are those of the test part. `predictions_digest` is over the test part's predictions, bit for bit.
    `files` maps each other file of the artifact to its SHA-256. If boosted trees are among them, the model predicts
    from those, else through scikit-learn.
    """

    name: str
    version: int
    service: str
    features: tuple[ModelFeature, ...]
    label: str
    catalog_digest: str
    dataset: DatasetRecord
    estimator: CodeReference
    estimator_text: str
    seed: int
    iterations: int | None
    metrics: Mapping[str, float]
    calibration: tuple[CalibrationBin, ...]
    predictions_digest: str
    baseline: tuple[Baseline, ...]
    prediction_baseline: Baseline
    libraries: Mapping[str, str]
    trained_at: datetime
    run_id: str = ""
    files: Mapping[str, str]
    format: int = FORMAT

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def has_trees(self) -> bool:
        return TREES in self.files

    @property
    def encoding(self) -> Encoding:
        return Encoding(features=self.features)

    def to_json(self) -> str:
        """Canonical: sorted keys, so that equal manifests are equal bytes."""
        return json.dumps(_plain(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def manifest_from_json(text: str) -> Manifest:
    """Read a manifest. Raises ValueError, KeyError or TypeError where the text is not one."""
    plain = json.loads(text)
    if plain["format"] != FORMAT:
        raise ValueError(f"format {plain['format']} instead of {FORMAT}")
    plain["features"] = tuple(_feature(item) for item in plain["features"])
    plain["dataset"] = DatasetRecord(**_with_instants(plain["dataset"], DatasetRecord))
    plain["estimator"] = CodeReference(**plain["estimator"])
    plain["calibration"] = tuple(CalibrationBin(**item) for item in plain["calibration"])
    plain["baseline"] = tuple(baseline_from(item) for item in plain["baseline"])
    plain["prediction_baseline"] = baseline_from(plain["prediction_baseline"])
    return Manifest(**_with_instants(plain, Manifest))


def _feature(plain: dict[str, Any]) -> ModelFeature:
    return ModelFeature(
        name=plain["name"], dtype=ValueType[plain["dtype"]], categories=tuple(plain.get("categories", ()))
    )


def _with_instants(plain: dict[str, Any], cls: type) -> dict[str, Any]:
    instants = {field.name for field in fields(cls) if field.type == "datetime"}
    return {name: datetime.fromisoformat(value) if name in instants else value for name, value in plain.items()}


def _plain(item: Any) -> Any:
    if isinstance(item, ValueType):
        return item.name
    if isinstance(item, datetime):
        return item.isoformat()
    if isinstance(item, Mapping):
        return {key: _plain(value) for key, value in item.items()}
    if is_dataclass(item):
        return {field.name: _plain(getattr(item, field.name)) for field in fields(item)}
    if isinstance(item, tuple | list):
        return [_plain(part) for part in item]
    return item
