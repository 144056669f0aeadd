"""A small shop that has lived a little: trained twice, served over HTTP, verified and monitored, all for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl
from ports import free_port
from waiting import PATIENCE, PATIENT, wait_until

from tidemill.clock import SimulatedClock
from tidemill.definitions.catalog import (
    Catalog,
    Entity,
    Feature,
    Freshness,
    LabelDefinition,
    Model,
    Projection,
    Schedule,
    Service,
    Source,
    SpineDefinition,
    Split,
    View,
)
from tidemill.definitions.code import import_file, reference_to
from tidemill.definitions.types import ValueType
from tidemill.metadata.reports import ReportRepository
from tidemill.monitor.check import monitor
from tidemill.monitor.parity import verify
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project, open_project
from tidemill_training.train import train

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=30)

ESTIMATOR = """
from sklearn.ensemble import HistGradientBoostingClassifier

def make():
    return HistGradientBoostingClassifier(max_iter=20)
"""
SERVE = """
import sys
from tidemill.project import open_project
from tidemill_serving.process import run_server
run_server(open_project(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), dashboard=True)
"""


def open_shop(root: Path) -> Project:
    """The shop with its definitions applied and its data landed; nothing has run yet."""
    (root / "feature_store.yaml").write_text("project: shop\n")
    (root / "estimator.py").write_text(ESTIMATOR)
    project = open_project(root)
    project.catalogs.add(_catalog(root), at=START)
    _clock(project).set(NOW)
    _land(root)
    return project


def live_a_day(project: Project, client: httpx.Client) -> None:
    """Predictions every three hours, each after a run; then the checks. The server must be ready."""
    orders = pl.read_parquet(project.root / "data" / "orders").filter(pl.col("at") >= NOW)
    for hours in range(0, 24, 3):
        now = NOW + timedelta(hours=hours)
        _clock(project).set(now)
        project.materialize(until=now)
        due = orders.filter(pl.col("at").is_between(now, now + timedelta(hours=3), closed="left"))
        rows = due.select("customer", "order").to_dicts()
        client.post("/v1/models/late/predict", json={"rows": rows}).raise_for_status()
    end = NOW + timedelta(days=1)
    _clock(project).set(end)
    verify(project, model="late")
    monitor(project, "late", at=end)


def train_twice(project: Project) -> None:
    for days in (20, 28):
        train(project, "late", until=START + timedelta(days=days), at=NOW)


def reports(project: Project) -> ReportRepository:
    return ReportRepository(project.database, project.name)


@contextmanager
def served(project: Project, **environment: str) -> Iterator[str]:
    """The API and its dashboard in a process of their own; gives the address. The embedded Redis ends with it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(project.root), str(port)],
        env=os.environ | PATIENT | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        EmbeddedRedis(project.redis_folder).stop()


def _wait_until_ready(process: subprocess.Popen[str], url: str) -> None:
    def ready() -> bool:
        assert process.poll() is None, process.communicate()[1]
        try:
            return httpx.get(url, timeout=PATIENCE).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, every=0.1)


def _clock(project: Project) -> SimulatedClock:
    assert isinstance(project.clock, SimulatedClock)
    return project.clock


def _catalog(root: Path) -> Catalog:
    visits = View(
        name="visits",
        entities=("customer",),
        join_keys=("customer",),
        features=(
            Feature(name="mean_visit", dtype=ValueType.DOUBLE),
            Feature(name="pages", dtype=ValueType.INT64),
        ),
        source="visits",
        ttl=timedelta(days=2),
        schedule=Schedule(every=timedelta(hours=3)),
        freshness=Freshness(max_age=timedelta(hours=12)),
        description="How long a customer stayed <b>lately</b>.",
    )
    model = Model(
        name="late",
        service="shop_v1",
        spine=SpineDefinition(
            source="orders", time_column="at", id_column="order", keys=(("customer", "customer"),), request=()
        ),
        label=LabelDefinition(source="outcomes", column="late", id_column="order"),
        estimator=reference_to(import_file(root / "estimator.py", root).make, root),
        split=Split(test=timedelta(days=4), validation=timedelta(days=2)),
        metrics=("roc_auc", "log_loss"),
        description="Will the order be late?",
    )
    return Catalog(
        project="shop",
        entities=(Entity(name="customer", join_key="customer", dtype=ValueType.INT64),),
        sources=tuple(
            Source(name=name, path=f"data/{name}", timestamp_field="at") for name in ("visits", "orders", "outcomes")
        ),
        views=(visits,),
        services=(Service(name="shop_v1", projections=(Projection(view="visits", features=("mean_visit", "pages")),)),),
        models=(model,),
    )


def _land(root: Path) -> None:
    random = np.random.default_rng(7)
    hours = pl.datetime_range(START, NOW + timedelta(days=1), "6h", time_zone="UTC", eager=True, time_unit="us")
    visits = pl.DataFrame({"at": hours}).join(pl.DataFrame({"customer": range(40)}), how="cross")
    stay = random.gamma(2.0, 3.0, visits.height)
    visits = visits.with_columns(mean_visit=stay, pages=pl.Series(random.integers(1, 30, visits.height)))
    count = 6_000
    orders = pl.DataFrame(
        {
            "order": [f"order-{number}" for number in range(count)],
            "customer": random.integers(0, 40, count),
            "at": pl.Series(np.sort(random.uniform(0, 31 * 86_400_000, count)).astype(np.int64)).cast(pl.Duration("ms"))
            + START,
        }
    ).with_columns(pl.col("at").dt.cast_time_unit("us"))
    newest = orders.join_asof(visits, on="at", by="customer", check_sortedness=False)
    chance = 1 / (1 + np.exp(6 - newest.get_column("mean_visit").fill_null(0).to_numpy()))
    late = pl.Series("late", (random.random(count) < chance).astype(np.int64))
    outcomes = orders.select("order", pl.col("at") + pl.duration(hours=2)).with_columns(late)
    for name, frame in (("visits", visits), ("orders", orders), ("outcomes", outcomes)):
        (root / "data" / name).mkdir(parents=True)
        frame.write_parquet(root / "data" / name / "all.parquet")
