"""The HTTP API against Feast's own server and a hand-written FastAPI app; same Redis, same data, same run.

    python tests/benchmarks/bench_serving.py [--entities 100000] [--seconds 5] [--json FILE]

Answers are compared first. Each server is one process; the load comes from another one. Rates are requests a second.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
from http_load import Load, Measured

from tidemill.clock import SimulatedClock
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, ValueType, View
from tidemill.definitions.catalog import CodeReference, LabelDefinition, Model, Source, SpineDefinition, Split
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project, open_project

HERE = Path(__file__).parent
T0 = datetime(2024, 5, 1, 12, tzinfo=UTC)
KINDS = (ValueType.DOUBLE, ValueType.INT64, ValueType.STRING, ValueType.DOUBLE, ValueType.FLOAT)
VIEWS, FEATURES = 5, 10
TARGETS = {
    "features, 1 row, 16 connections: over Feast's tuned server": ("at least", 12.0),
    "features, 1 row, 1 connection: p50 over Feast's": ("at most", 0.3),
    "features, 100 rows, 16 connections: over Feast's tuned server": ("at least", 30.0),
    "prediction, 1 row, 32 connections: over FastAPI + Feast + scikit-learn": ("at least", 10.0),
    "prediction at 70 % of capacity: p99, ms": ("at most", 20.0),
    "prediction at 70 % of capacity: p99 with the log over p99 without": ("at most", 1.05),
    "catalog reloads under load: failed requests": ("at most", 0.0),
    "start to ready, s": ("at most", 3.0),
    "memory of one process, MB": ("at most", 250.0),
}


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
    minutes = pl.duration(minutes=pl.Series(random.integers(0, 600, entities)))
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
    (project.root / "references.txt").write_text("\n".join(_references(catalog, "forty")))


def _references(catalog: Catalog, service: str) -> list[str]:
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


@contextmanager
def serving(which: str, root: Path, port: int) -> Iterator[psutil.Process]:
    """A peer in a process of its own, from the moment it is ready."""
    command = [sys.executable, str(HERE / "serving_peers.py"), which, str(root), str(port)]
    with subprocess.Popen(command) as process:
        try:
            path = "/readyz" if which.startswith("ours") else "/health"
            _wait(lambda: httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(3_000):
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise SystemExit("A server did not become ready.")


def load(
    port: int, path: str, bodies: list[Any], *, connections: int, seconds: float, rate: float | None = None
) -> Measured:
    plan = Load(
        port=port, path=path, bodies=tuple(json.dumps(body) for body in bodies), connections=connections,
        seconds=seconds, rate=rate,
    )  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(plan), file)
        file.flush()
        done = subprocess.run(
            [sys.executable, str(HERE / "http_load.py"), file.name], check=True, capture_output=True, text=True
        )
    return Measured(**json.loads(done.stdout))


class Bodies:
    """Requests for the same entities in each server's own words."""

    def __init__(self, entities: int, catalog: Catalog) -> None:
        self._random, self._entities = np.random.default_rng(7), entities
        self._references = _references(catalog, "three_views")

    def rows(self, size: int, count: int = 200) -> list[list[dict[str, int]]]:
        return [
            [{"driver_id": int(entity)} for entity in self._random.choice(self._entities, size, replace=False)]
            for _ in range(count)
        ]

    def feast(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        return {"features": self._references, "entities": {"driver_id": [row["driver_id"] for row in rows]}}


def compare_features(rows: list[dict[str, int]], bodies: Bodies, ours: int, feast: int) -> None:
    mine = httpx.post(f"http://127.0.0.1:{ours}/v1/features/three_views", json={"rows": rows}).json()["features"]
    answer = httpx.post(f"http://127.0.0.1:{feast}/get-online-features", json=bodies.feast(rows)).json()
    theirs = {
        name: vector["values"]
        for name, vector in zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    }
    for name, column in mine.items():
        if column != theirs[name]:
            raise SystemExit(f"{name} differs: {column} and {theirs[name]}")


def compare_predictions(rows: list[dict[str, int]], ours: int, plain: int) -> None:
    mine = httpx.post(f"http://127.0.0.1:{ours}/v1/models/reference/predict", json={"rows": rows}).json()
    theirs = httpx.post(f"http://127.0.0.1:{plain}/predict", json={"rows": rows}).json()["predictions"]
    for row, other in zip(mine["predictions"], theirs, strict=True):
        if not math.isclose(row["prediction"], other, rel_tol=1e-12):
            raise SystemExit(f"Predictions differ: {row['prediction']} and {other}")


def bench_features(root: Path, bodies: Bodies, seconds: float) -> dict[str, Any]:
    """Ours and Feast's take turns, idle while the other is asked."""
    found: dict[str, Any] = {}
    with serving("ours", root, 8701), serving("feast", root, 8702):
        for size in (1, 100):
            compare_features(bodies.rows(size, 1)[0], bodies, 8701, 8702)
        for size, connections in ((1, 1), (1, 16), (10, 16), (100, 1), (100, 16)):
            rows = bodies.rows(size)
            ours = load(
                8701,
                "/v1/features/three_views",
                [{"rows": one} for one in rows],
                connections=connections,
                seconds=seconds,
            )
            feast = load(
                8702,
                "/get-online-features",
                [bodies.feast(one) for one in rows],
                connections=connections,
                seconds=seconds,
            )
            found[f"features, {_count(size, 'row')}, {_count(connections, 'connection')}"] = {
                "tidemill": ours,
                "Feast's server, tuned": feast,
            }
    return found


def bench_predictions(root: Path, bodies: Bodies, seconds: float) -> dict[str, Any]:
    path, requests = "/v1/models/reference/predict", [{"rows": rows} for rows in bodies.rows(1)]
    found: dict[str, Any] = {}
    with serving("ours", root, 8703), serving("plain", root, 8704):
        compare_predictions(bodies.rows(50, 1)[0], 8703, 8704)
        for connections in (1, 32):
            found[f"prediction, 1 row, {_count(connections, 'connection')}"] = {
                "tidemill": load(8703, path, requests, connections=connections, seconds=seconds),
                "FastAPI + Feast + scikit-learn": load(
                    8704, "/predict", requests, connections=connections, seconds=seconds
                ),
            }
    capacity = found["prediction, 1 row, 32 connections"]["tidemill"].rate
    with serving("ours", root, 8703), serving("ours-unlogged", root, 8704):
        found["prediction, 1 row, at 70 % of capacity"] = {
            name: load(port, path, requests, connections=64, seconds=2 * seconds, rate=0.7 * capacity)
            for name, port in (("tidemill", 8703), ("tidemill without its log", 8704))
        }
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def bench_reload(root: Path, project: Project, bodies: Bodies, seconds: float) -> Measured:
    """A new catalog every second while requests come."""
    catalog, stop = make_catalog(), threading.Event()

    def change() -> None:
        number = 0
        while not stop.wait(1.0):
            number += 1
            view = replace(catalog.views[0], description=f"change {number}")
            project.catalogs.add(replace(catalog, views=(view, *catalog.views[1:])), at=T0)

    with serving("ours", root, 8705):
        changing = threading.Thread(target=change)
        changing.start()
        requests = [{"rows": rows} for rows in bodies.rows(1)]
        measured = load(8705, "/v1/models/reference/predict", requests, connections=16, seconds=max(5.0, seconds))
        stop.set()
        changing.join()
    return measured


def bench_start(root: Path) -> tuple[float, float]:
    """Seconds from the process's beginning to ready, and its memory in MB after some work."""
    begun = time.perf_counter()
    with serving("ours", root, 8706) as process:
        ready = time.perf_counter() - begun
        rows = [{"driver_id": entity} for entity in range(100)]
        for _ in range(50):
            httpx.post("http://127.0.0.1:8706/v1/models/reference/predict", json={"rows": rows})
        return ready, process.memory_info().rss / 2**20


def run(entities: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project = prepare(root, entities)
        try:
            bodies = Bodies(entities, make_catalog())
            ready, memory = bench_start(root)
            table = bench_features(root, bodies, seconds) | bench_predictions(root, bodies, seconds)
            reload = bench_reload(root, project, bodies, seconds)
        finally:
            project.close()
            EmbeddedRedis(project.redis_folder).stop()
    return {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("feast", "scikit-learn", "uvicorn", "redis")},
        "table": {work: {name: asdict(one) for name, one in peers.items()} for work, peers in table.items()},
        "ratios": _ratios(table, reload, ready, memory),
    }


def _ratios(table: dict[str, Any], reload: Measured, ready: float, memory: float) -> dict[str, float]:
    def over(work: str, peer: str) -> float:
        return table[work]["tidemill"].rate / table[work][peer].rate

    single = table["features, 1 row, 1 connection"]
    calm = table["prediction, 1 row, at 70 % of capacity"]
    figures = (
        over("features, 1 row, 16 connections", "Feast's server, tuned"),
        single["tidemill"].p50 / single["Feast's server, tuned"].p50,
        over("features, 100 rows, 16 connections", "Feast's server, tuned"),
        over("prediction, 1 row, 32 connections", "FastAPI + Feast + scikit-learn"),
        calm["tidemill"].p99,
        calm["tidemill"].p99 / calm["tidemill without its log"].p99,
        float(reload.failed),
        ready,
        memory,
    )
    return dict(zip(TARGETS, figures, strict=True))


def report(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, Python {found['python']}, {found['versions']}")
    for work, peers in found["table"].items():
        print(f"\n{work}")
        for name, one in peers.items():
            times = f"p50 {one['p50']:8.2f} ms   p99 {one['p99']:8.2f} ms"
            print(f"  {name:34} {one['rate']:9,.0f} requests a second   {times}   failed {one['failed']}")
    print()
    for name, figure in found["ratios"].items():
        how, target = TARGETS[name]
        held = figure <= target if how == "at most" else figure >= target
        print(f"  {name:76} {figure:9.2f}   {how} {target:g}   {'held' if held else 'MISSED'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    outcome = run(options.entities, options.seconds)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2))
