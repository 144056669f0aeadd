"""The project that `bench_serving.py` serves: five views of ten features in Redis, a promoted model of forty, and the
same definitions for Feast, which reads the same Redis.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tidemill.clock import SimulatedClock
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, ValueType, View
from tidemill.definitions.catalog import CodeReference, LabelDefinition, Model, Source, SpineDefinition, Split
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project, open_project

T0 = datetime(2024, 5, 1, 12, tzinfo=UTC)
KINDS = (ValueType.DOUBLE, ValueType.INT64, ValueType.STRING, ValueType.DOUBLE, ValueType.FLOAT)
VIEWS, FEATURES = 5, 10


def make_catalog() -> Catalog:
    views = tuple(_view(number) for number in range(VIEWS))
    numeric = [
        Projection(view=v.name, features=tuple(f.name for f in v.features if f.dtype is not ValueType.STRING))
        for v in views
    ]
    return Catalog(
        project="bench",
        entities=(Entity(name="driver", join_key="driver_id", dtype=ValueType.INT64),),
        sources=(Source(name="s", path="none.parquet", timestamp_field="at"),),
        views=views,
        services=(
            Service(
                name="three_views",
                projections=tuple(
                    Projection(view=v.name, features=tuple(f.name for f in v.features)) for v in views[:3]
                ),
            ),
            Service(name="forty", projections=tuple(numeric)),
        ),
        models=(
            Model(
                name="reference",
                service="forty",
                spine=SpineDefinition(
                    source="s", time_column="at", id_column="ride", keys=(("driver_id", "driver_id"),)
                ),
                label=LabelDefinition(source="s", column="late", id_column="ride"),
                estimator=CodeReference(module="estimators", qualname="make", digest="0" * 64),
                split=Split(test=timedelta(days=1)),
                metrics=("roc_auc",),
            ),
        ),
    )


def _view(number: int) -> View:
    features = tuple(Feature(name=f"v{number}_f{i}", dtype=KINDS[i % len(KINDS)]) for i in range(FEATURES))
    return View(
        name=f"view{number}", entities=("driver",), join_keys=("driver_id",), features=features, source="s",
        ttl=timedelta(days=1),
    )  # fmt: skip


def make_rows(view: View, entities: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"driver_id": np.arange(entities)}
    columns |= {feature.name: _values(feature.dtype, random, entities) for feature in view.features}
    minutes = pl.duration(minutes=pl.lit(pl.Series(random.integers(0, 600, entities))))
    event = (pl.lit(T0) - minutes).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(columns).with_columns(event.alias("__event_time"), event.alias("__known_time"))


def _values(dtype: ValueType, random: np.random.Generator, entities: int) -> pl.Series:
    if dtype is ValueType.INT64:
        return pl.Series(random.integers(0, 1_000_000, entities))
    if dtype is ValueType.STRING:
        return pl.Series(random.integers(0, 500, entities)).cast(pl.String).str.zfill(8)
    floats = pl.Series(random.random(entities))
    return floats.cast(pl.Float32) if dtype is ValueType.FLOAT else floats


def prepare(root: Path, entities: int) -> Project:
    """A project with data in its Redis and a promoted model, and the same for Feast."""
    (root / "feature_store.yaml").write_text("project: bench\n")
    project = open_project(root)
    SimulatedClock(project.state / "clock.json").set(T0)
    catalog = make_catalog()
    project.catalogs.add(catalog, at=T0)
    for seed, view in enumerate(catalog.views):
        project.online.write(view.name, make_rows(view, entities, seed))
    _promote(project, catalog)
    _apply_feast(root, catalog, project)
    return project


def _promote(project: Project, catalog: Catalog) -> None:
    """A gradient-boosted classifier of the size the reference model has: 200 trees of 31 leaves on 40 features."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from tidemill.models.artifact import ModelArtifact
    from tidemill.models.baseline import describe
    from tidemill.models.encoding import ModelFeature
    from tidemill.models.manifest import DatasetRecord, Manifest

    taken = catalog.service("forty").projections
    types = {name: catalog.view(part.view).feature(name).dtype for part in taken for name in part.features}
    random = np.random.default_rng(0)
    matrix = random.random((20_000, len(types)))
    late = matrix[:, 0] + matrix[:, 3] * matrix[:, 5] + random.normal(0, 0.3, 20_000) > 1
    estimator = HistGradientBoostingClassifier(max_iter=200, early_stopping=False, random_state=0)
    record = DatasetRecord(
        digest="d" * 64, mode="served", start=T0, validation_start=T0, test_start=T0, until=T0,
        fit_rows=1, validation_rows=1, test_rows=1, positive_share=0.5,
    )  # fmt: skip
    manifest = Manifest(
        name="reference", version=1, service="forty",
        features=tuple(ModelFeature(name=name, dtype=dtype) for name, dtype in types.items()),
        label="late", catalog_digest=catalog.digest, dataset=record,
        estimator=CodeReference(module="estimators", qualname="make", digest="0" * 64), estimator_text="",
        seed=0, iterations=200, metrics={}, calibration=(), predictions_digest="", baseline=(),
        prediction_baseline=describe(pl.Series("prediction", [0.1, 0.9])), libraries={}, trained_at=T0, files={},
    )  # fmt: skip
    saved = ModelArtifact(manifest=manifest, estimator=estimator.fit(matrix, late)).save(project.root / "artifact")
    project.deployments.set(
        "reference", alias="champion", version=1, artifact="artifact", digest=saved.digest, reason="bench", at=T0
    )
    (project.root / "artifact.txt").write_text("artifact")
    (project.root / "references.txt").write_text("\n".join(references(catalog, "forty")))


def references(catalog: Catalog, service: str) -> list[str]:
    return [f"{part.view}:{name}" for part in catalog.service(service).projections for name in part.features]


def _apply_feast(root: Path, catalog: Catalog, project: Project) -> None:
    """Feast's own definitions over its own Redis store, pointed at the same Redis: it reads what we wrote."""
    from feast import Entity as FeastEntity
    from feast import FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import from_value_type
    from feast.value_type import ValueType as FeastType

    socket = EmbeddedRedis(project.redis_folder).socket
    config = {
        "project": "bench",
        "provider": "local",
        "registry": {"path": str(root / "feast_registry.db"), "cache_ttl_seconds": 0},
        "online_store": {"type": "redis", "connection_string": f"none:0,unix_socket_path={socket}"},
        "entity_key_serialization_version": 3,
    }
    (root / "feast.json").write_text(json.dumps(config))
    pl.DataFrame({"driver_id": [0], "at": [T0]}).write_parquet(root / "none.parquet")
    driver = FeastEntity(name="driver", join_keys=["driver_id"], value_type=FeastType.INT64)
    tables = [
        FeatureView(
            name=view.name,
            entities=[driver],
            ttl=timedelta(0),  # Feast ignores a ttl online, and the clock of the bench stands in 2024
            schema=[Field(name="driver_id", dtype=from_value_type(FeastType.INT64))]
            + [Field(name=f.name, dtype=from_value_type(FeastType[f.dtype.name])) for f in view.features],
            source=FileSource(name=f"source_{view.name}", path=str(root / "none.parquet"), timestamp_field="at"),
        )
        for view in catalog.views
    ]
    FeatureStore(config=RepoConfig(**config)).apply([driver, *tables])
