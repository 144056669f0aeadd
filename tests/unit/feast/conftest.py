"""A small repository of definitions, to be changed by each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from feast_settings import settings_of

from tidemill.online.embedded import EmbeddedRedis

sys.path.insert(0, str(Path(__file__).parent))  # tests share definitions by name

DEFINITIONS = """
from datetime import timedelta

from feast import Aggregation, Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast import StreamFeatureView, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

import tidemill
from prices import discount

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
orders_file = FileSource(name="orders_file", path="data/orders", timestamp_field="at", created_timestamp_column="seen")
profile_file = FileSource(name="profile_file", path="data/profile", timestamp_field="at")
orders = PushSource(name="orders", batch_source=orders_file)
basket = RequestSource(name="basket", schema=[Field(name="total", dtype=Float64)])

profile = FeatureView(
    name="profile",
    entities=[customer],
    ttl=timedelta(days=30),
    schema=[Field(name="country", dtype=String), Field(name="age", dtype=Int64)],
    source=profile_file,
    tags=tidemill.tags(schedule="5 * * * *", timezone="Europe/Berlin", lag="2m", max_age="2h", when_stale="null"),
)
spending = StreamFeatureView(
    name="spending",
    entities=[customer],
    schema=[Field(name="spent_1d", dtype=Float64), Field(name="orders_1d", dtype=Int64)],
    source=orders,
    aggregations=[
        Aggregation(column="amount", function="sum", time_window=timedelta(days=1), name="spent_1d"),
        Aggregation(
            column="amount", function="count", time_window=timedelta(days=1), slide_interval=timedelta(hours=6),
            name="orders_1d",
        ),
    ],
    timestamp_field="at",
    tags=tidemill.tags(event_id="order_id"),
)
discounts = on_demand_feature_view(
    name="discounts", sources=[basket, profile], schema=[Field(name="discount", dtype=Float64)], mode="python",
)(discount)
offers_v1 = FeatureService(name="offers_v1", features=[profile[["age"]], spending, discounts])
"""
PRICES = """
def discount(inputs):
    return {"discount": [0.1 * total for total in inputs["total"]]}
"""


@pytest.fixture
def write_repository(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Write the shop's repository with texts replaced: `write_repository(("old", "new"), ...)`; returns its folder."""

    def write(*replacements: tuple[str, str], more: str = "", name: str = "shop") -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        text = DEFINITIONS + more
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        (root / "feature_store.yaml").write_text(settings_of("shop"))
        (root / "definitions.py").write_text(text)
        (root / "prices.py").write_text(PRICES)
        return root

    yield write
    for file in tmp_path.glob("*/feature_store.yaml"):
        EmbeddedRedis(file.parent / ".tidemill" / "redis").stop()
