"""A small Feast repository with our plug-ins: its definitions, and its files as Parquet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from feast_settings import settings_of

NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)
CONFIGURATION = settings_of("rides")
DEFINITIONS = """
from datetime import timedelta

from feast import Aggregation, Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast import StreamFeatureView, ValueType
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

from prices import price

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
city = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)

stats_file = FileSource(
    name="stats_file", path="data/stats", timestamp_field="event_timestamp", created_timestamp_column="created"
)
weather_file = FileSource(name="weather_file", path="data/weather.parquet", timestamp_field="hour")
rate_file = FileSource(name="rate_file", path="data/rate.parquet", timestamp_field="at")
trips_file = FileSource(name="trips_file", path="data/trips", timestamp_field="at", created_timestamp_column="known")
trips = PushSource(name="trips", batch_source=trips_file)
position_file = FileSource(name="position_file", path="data/position", timestamp_field="at")
positions = PushSource(name="positions", batch_source=position_file)
request = RequestSource(name="request", schema=[Field(name="km", dtype=Float64)])

stats = FeatureView(
    name="stats", entities=[driver], ttl=timedelta(hours=6), source=stats_file,
    schema=[
        Field(name="trips_today", dtype=Int64), Field(name="rating", dtype=Float64), Field(name="car", dtype=String),
    ],
)
weather = FeatureView(
    name="weather", entities=[city], ttl=timedelta(hours=3), source=weather_file,
    schema=[Field(name="rain", dtype=Float64)],
)
rate = FeatureView(name="rate", entities=[], source=rate_file, schema=[Field(name="per_km", dtype=Float64)])
position = FeatureView(
    name="position", entities=[driver], source=positions, schema=[Field(name="zone", dtype=String)],
)
earned = StreamFeatureView(
    name="earned", entities=[driver], source=trips, timestamp_field="at",
    schema=[Field(name="earned_1h", dtype=Float64), Field(name="trips_1h", dtype=Int64)],
    aggregations=[
        Aggregation(column="fare", function="sum", time_window=timedelta(hours=1), name="earned_1h"),
        Aggregation(column="fare", function="count", time_window=timedelta(hours=1), name="trips_1h"),
    ],
    tags={"tidemill.event_id": "trip_id"},
)
quote = on_demand_feature_view(
    name="quote", sources=[request, rate], schema=[Field(name="price", dtype=Float64)], mode="python"
)(price)
offer = FeatureService(
    name="offer",
    features=[stats[["trips_today", "rating"]], weather, quote],
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="data/logs")),
)
"""
PRICES = """
def price(inputs):
    pairs = zip(inputs["km"], inputs["per_km"])
    return {"price": [None if km is None or rate is None else km * rate for km, rate in pairs]}
"""


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def write_data(root: Path) -> None:
    data = root / "data"
    (data / "stats").mkdir(parents=True)
    pl.DataFrame(
        {
            "driver_id": [1, 1, 2, 1, None],
            "event_timestamp": [at(-2), at(-1), at(-1), at(-1), at(-1)],
            "created": [at(-2), at(-1), at(-1), at(-0.5), at(-1)],
            "trips_today": [3, 4, None, 5, 9],
            "rating": [4.5, 4.6, float("nan"), 4.7, 1.0],
            "car": ["van", "van", "bus", "van", "ghost"],
        }
    ).write_parquet(data / "stats" / "one.parquet")
    pl.DataFrame({"city": ["ams", "ber"], "hour": [at(-1), at(-5)], "rain": [0.5, 0.25]}).write_parquet(
        data / "weather.parquet"
    )
    pl.DataFrame({"at": [at(-30), at(-3)], "per_km": [1.0, 2.0]}).write_parquet(data / "rate.parquet")
    (data / "trips").mkdir()
    pl.DataFrame(
        {
            "trip_id": ["a", "b", "c"],
            "driver_id": [1, 1, 2],
            "at": [at(-2), at(-0.5), at(-0.25)],
            "known": [at(-2), at(-0.5), at(-0.25)],
            "fare": [10.0, 7.5, 3.0],
        }
    ).write_parquet(data / "trips" / "one.parquet")
    (data / "position").mkdir()
    pl.DataFrame({"driver_id": [1], "at": [at(-4)], "zone": ["north"]}).write_parquet(data / "position" / "one.parquet")


def write_files(root: Path) -> None:
    """Definitions and data, but no configuration."""
    (root / "definitions.py").write_text(DEFINITIONS)
    (root / "prices.py").write_text(PRICES)
    write_data(root)
