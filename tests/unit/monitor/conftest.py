"""A small project about airports, on real parts: database, ledger, prediction log, offline store over Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from manifests import manifest_of
from sklearn.dummy import DummyClassifier

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions import (
    Catalog,
    Entity,
    Feature,
    Projection,
    Schedule,
    Service,
    Source,
    Stream,
    ValueType,
    View,
)
from tidemill.definitions.catalog import CodeReference, LabelDefinition, Model, SpineDefinition, Split
from tidemill.models.artifact import ModelArtifact
from tidemill.models.baseline import describe
from tidemill.models.encoding import ModelFeature
from tidemill.models.manifest import Manifest
from tidemill.predictions.log import PredictionRecord
from tidemill.project import Project, open_project

START = datetime(2013, 10, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")
TIMES = {"origin": pl.String(), "event_time": INSTANT, "known_time": INSTANT}
COLUMNS: dict[str, dict[str, Any]] = {
    "measured": TIMES | {"temp": pl.Float64(), "gusts": pl.Int64()},
    "delayed": TIMES | {"delay": pl.Float64()},
    "flights": TIMES | {"id": pl.String()},
    "outcomes": TIMES | {"id": pl.String(), "late": pl.Int64()},
}


def minutes(count: float) -> datetime:
    return START + timedelta(minutes=count)


@dataclass
class History:
    """The project's sources as Parquet files, written anew with every row that is added."""

    root: Path
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, source: str, *, key: str, at: datetime, known: datetime | None = None, **values: Any) -> None:
        row = {"origin": key, "event_time": at, "known_time": known or at, **values}
        self.rows.setdefault(source, []).append(row)
        self.write(source)

    def write(self, source: str) -> None:
        folder = self.root / source
        folder.mkdir(exist_ok=True)
        pl.DataFrame(self.rows.get(source, []), schema=COLUMNS[source]).write_parquet(folder / "rows.parquet")


def small_catalog() -> Catalog:
    """Weather every hour on the hour, kept for three hours; delays pushed as they happen."""
    origin = Entity(name="origin", join_key="origin", dtype=ValueType.STRING)
    sources = tuple(
        Source(name=name, path=name, timestamp_field="event_time", known_field="known_time")
        for name in ("measured", "delayed", "flights", "outcomes")
    )
    weather = View(
        name="weather",
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="temp", dtype=ValueType.DOUBLE), Feature(name="gusts", dtype=ValueType.INT64)),
        source="measured",
        ttl=timedelta(hours=3),
        schedule=Schedule(cron="0 * * * *"),
    )
    delays = View(
        name="delays",
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="delay", dtype=ValueType.DOUBLE),),
        source="delayed",
        stream="delays_stream",
    )
    service = Service(
        name="both",
        projections=(
            Projection(view="weather", features=("temp", "gusts")),
            Projection(view="delays", features=("delay",)),
        ),
    )
    model = Model(
        name="late",
        service="both",
        spine=SpineDefinition(source="flights", time_column="at", id_column="id", keys=(("origin", "origin"),)),
        label=LabelDefinition(source="outcomes", column="late", id_column="id"),
        estimator=CodeReference(module="estimators", qualname="make", digest="0"),
        split=Split(test=timedelta(days=1)),
        metrics=("roc_auc", "average_precision", "log_loss", "brier"),
    )
    return Catalog(
        project="airports",
        entities=(origin,),
        sources=sources,
        streams=(Stream(name="delays_stream", kind="push", source="delayed"),),
        views=(weather, delays),
        services=(service,),
        models=(model,),
    )


@dataclass(frozen=True, kw_only=True)
class Airports:
    """The project with its history, and a way to log what was served."""

    project: Project
    history: History

    def serve(
        self,
        at: datetime,
        *,
        origin: str = "JFK",
        prediction: float = 0.5,
        version: int = 1,
        id: str | None = None,  # noqa: A002 - the log's own name
        digest: str | None = None,
        statuses: dict[str, str] | None = None,
        **features: Any,
    ) -> None:
        said = {name: "PRESENT" if value is not None else "NOT_FOUND" for name, value in features.items()}
        record = PredictionRecord(
            prediction_id=self.project.predictions.new_ids(1)[0],
            model="late",
            version=version,
            service="both",
            catalog_digest=digest or self.project.catalog.digest,
            at=to_micros(at),
            id=id,
            keys=json.dumps({"origin": origin}),
            request="{}",
            features=json.dumps(features),
            statuses=json.dumps(said | (statuses or {})),
            prediction=prediction,
        )
        self.project.predictions.append([record])

    def ran(self, view: str, *, tick: datetime, started: datetime, finished: datetime) -> None:
        claim = self.project.ledger.claim(view, start=None, end=tick, at=started)
        assert claim is not None
        self.project.ledger.succeed(claim, cutoff=tick, rows_read=1, rows_written=1, rows_skipped=0, at=finished)

    def promote(self, trained_on: pl.DataFrame, *, metrics: dict[str, float], version: int = 1) -> None:
        """Deploy a champion whose manifest says what it was trained on, and how good it was."""
        folder = self.project.root / "models" / str(version)
        manifest = make_manifest(trained_on, metrics=metrics, version=version)
        saved = ModelArtifact(manifest=manifest, estimator=DummyClassifier().fit([[0.0]], [1])).save(folder)
        self.project.deployments.set(
            "late",
            alias="champion",
            version=version,
            artifact=f"models/{version}",
            digest=saved.digest,
            reason="a test asked for it",
            at=START,
        )

    def add_outcomes(self, outcomes: Iterable[tuple[str, int, datetime]]) -> None:
        for name, late, known in outcomes:
            row = {"origin": "JFK", "event_time": known, "known_time": known, "id": name, "late": late}
            self.history.rows.setdefault("outcomes", []).append(row)
        self.history.write("outcomes")


def make_manifest(trained_on: pl.DataFrame, *, metrics: dict[str, float], version: int) -> Manifest:
    types = {"temp": ValueType.DOUBLE, "gusts": ValueType.INT64, "delay": ValueType.DOUBLE}
    return manifest_of(
        trained_on,
        tuple(ModelFeature(name=name, dtype=dtype) for name, dtype in types.items()),
        at=START,
        version=version,
        service="both",
        metrics=metrics,
        prediction_baseline=describe(trained_on["prediction"]),
    )


@pytest.fixture
def make_airports(tmp_path: Path) -> Iterable[Callable[[Catalog], Airports]]:
    opened: list[Project] = []

    def make(catalog: Catalog) -> Airports:
        (tmp_path / "feature_store.yaml").write_text("project: airports\n")
        project = open_project(tmp_path, clock=ManualClock(minutes(600)))
        opened.append(project)
        project.catalogs.add(catalog, at=START)
        history = History(root=tmp_path)
        for source in COLUMNS:
            history.write(source)
        return Airports(project=project, history=history)

    yield make
    for project in opened:
        project.close()


@pytest.fixture(name="minutes")
def minutes_after_start() -> Callable[[float], datetime]:
    return minutes


@pytest.fixture
def catalog() -> Catalog:
    return small_catalog()


@pytest.fixture
def airports(make_airports: Callable[[Catalog], Airports], catalog: Catalog) -> Airports:
    return make_airports(catalog)
