"""A small shop: its data, its definitions and a model of which orders come back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import tidemill
from tidemill.clock import ManualClock
from tidemill.definitions import ValueType
from tidemill.definitions.catalog import (
    Catalog,
    Entity,
    Feature,
    Gate,
    LabelDefinition,
    Model,
    OnDemandView,
    Projection,
    RequestField,
    Schedule,
    Service,
    Source,
    SpineDefinition,
    Split,
    Trigger,
    View,
)
from tidemill.definitions.code import reference_to
from tidemill.project import Project

START = datetime(2024, 1, 1, tzinfo=UTC)
TODAY = START + timedelta(days=50)
STEP = timedelta(microseconds=1)

ESTIMATORS = """
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC


def boosted():
    return HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=20, early_stopping=True)


def linear():
    return LogisticRegression()


def without_probabilities():
    return LinearSVC()
"""
REQUEST = """
def amount_facts(inputs):
    return {"is_large": [None if amount is None else amount > 50 for amount in inputs["amount"]]}
"""


def catalog_of(root: Path) -> Catalog:
    visits = View(
        name="customer_visits",
        entities=("customer",),
        join_keys=("customer",),
        features=(
            Feature(name="mean_visit", dtype=ValueType.DOUBLE),
            Feature(name="visits", dtype=ValueType.INT64),
            Feature(name="city", dtype=ValueType.STRING),
        ),
        source="visits",
        ttl=timedelta(days=2),
        schedule=Schedule(every=timedelta(hours=1), lag=timedelta(minutes=5)),
    )
    request = OnDemandView(
        name="order_request",
        features=(Feature(name="is_large", dtype=ValueType.BOOL),),
        function=reference_to(function(root, "request_facts", "amount_facts"), root),
        mode="python",
        request=(RequestField(name="amount", dtype=ValueType.DOUBLE),),
    )
    return Catalog(
        project="shop",
        entities=(Entity(name="customer", join_key="customer", dtype=ValueType.STRING),),
        sources=(
            Source(name="visits", path="data/visits", timestamp_field="event_time", known_field="known_time"),
            Source(name="orders", path="data/orders", timestamp_field="asked_at"),
            Source(name="returns", path="data/returns", timestamp_field="event_time", known_field="known_time"),
        ),
        views=(visits,),
        on_demand_views=(request,),
        services=(
            Service(
                name="returns_v1",
                projections=(
                    Projection(view="customer_visits", features=("mean_visit", "visits", "city")),
                    Projection(view="order_request", features=("is_large",)),
                ),
            ),
        ),
        models=(
            Model(
                name="order_return",
                service="returns_v1",
                spine=SpineDefinition(
                    source="orders",
                    time_column="asked_at",
                    id_column="order_id",
                    keys=(("customer", "customer"),),
                    request=("amount",),
                ),
                label=LabelDefinition(source="returns", column="returned", id_column="order"),
                estimator=reference_to(function(root, "estimators", "boosted"), root),
                split=Split(test=timedelta(days=10), validation=timedelta(days=5)),
                metrics=("roc_auc", "average_precision", "log_loss"),
                gates=(
                    Gate(kind="at_least", metric="roc_auc", value=0.6),
                    Gate(kind="not_worse_than_champion", metric="roc_auc", value=0.05),
                ),
                retrain=(
                    Trigger(kind="new_data", settings=(("rows", 300),)),
                    Trigger(kind="schedule", settings=(("cron", "0 6 * * 1"), ("timezone", "UTC"))),
                    Trigger(kind="performance", settings=(("metric", "roc_auc"), ("drop", 0.03))),
                    Trigger(kind="drift", settings=(("psi", 0.2),)),
                ),
                seed=11,
            ),
        ),
    )


def function(root: Path, module: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(f"shop_{module}", root / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


def write_shop(root: Path, *, days: int = 60, every: int = 20, seed: int = 0) -> None:
    """Orders every 20 minutes whose return depends on the customer's visits; a return is known a day later."""
    random = np.random.default_rng(seed)
    root.mkdir()
    (root / "feature_store.yaml").write_text("project: shop\n")
    (root / "estimators.py").write_text(ESTIMATORS)
    (root / "request_facts.py").write_text(REQUEST)
    customers = np.array([f"c{number}" for number in range(20)])
    ticks = np.repeat(np.arange(days * 4), len(customers))
    visited = pl.Series([START], dtype=pl.Datetime("us", "UTC"))[0]
    visits = pl.DataFrame(
        {
            "customer": np.tile(customers, days * 4),
            "event_time": [visited + timedelta(hours=6 * int(tick)) for tick in ticks],
            "mean_visit": random.normal(0, 1, len(ticks)),
            "visits": random.integers(0, 9, len(ticks)),
            "city": random.choice(["Oslo", "Bergen", "Hamar"], len(ticks)),
        }
    ).with_columns(
        known_time=pl.col("event_time") + pl.duration(minutes=2),
        visits=pl.when(pl.int_range(pl.len()) % 11 != 0).then("visits"),
    )
    rows = days * 24 * 60 // every
    asked = [START + timedelta(minutes=every * row, hours=3) for row in range(rows)]
    orders = pl.DataFrame(
        {
            "order_id": [f"o{row:05}" for row in range(rows)],
            "asked_at": asked,
            "customer": random.choice(customers, rows),
            "amount": random.gamma(2, 25, rows),
        }
    )
    held = orders.sort("asked_at").join_asof(
        visits.sort("known_time"), left_on="asked_at", right_on="known_time", by="customer", check_sortedness=False
    )
    pull = 1.5 * held["mean_visit"].fill_null(0).to_numpy() + (orders["amount"].to_numpy() > 50)
    returned = random.random(rows) < 1 / (1 + np.exp(1.5 - pull))
    returns = pl.DataFrame({"order": orders["order_id"], "event_time": orders["asked_at"], "returned": returned})
    returns = returns.with_columns(known_time=pl.col("event_time") + pl.duration(days=1))
    for name, frame in (("visits", visits), ("orders", orders), ("returns", returns)):
        (root / "data" / name).mkdir(parents=True)
        frame.write_parquet(root / "data" / name / "part-0.parquet")


def open_at(root: Path, at: datetime) -> Project:
    return tidemill.open(root, clock=ManualClock(at))


def at(project: Project, moment: datetime) -> Project:
    assert isinstance(project.clock, ManualClock)
    project.clock.set(moment)
    return project


def redefine(project: Project, **changes: Any) -> None:
    catalog = project.catalog
    project.catalogs.add(replace(catalog, models=(replace(catalog.models[0], **changes),)), at=TODAY)
    project.reload()


def champion(project: Project) -> int:
    deployment = project.deployments.current("order_return")
    assert deployment is not None
    return deployment.version


def rewrite(project: Project, source: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    file = project.root / "data" / source / "part-0.parquet"
    change(pl.read_parquet(file)).write_parquet(file)


def show_folder(project: Project, version: int) -> Path:
    return project.state / "models" / "order_return" / str(version)
