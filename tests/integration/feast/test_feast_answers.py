"""Our offline store beside Feast's own, on what both define alike; and the rest of what a Feast user may call."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from rides import CONFIGURATION, NOON, at, write_files

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
OURS = "tidemill.feast.offline.PolarsOfflineStore"
ONLINE = "online_store: {type: tidemill.feast.online.TidemillRedisOnlineStore}"
ENGINE = "batch_engine: {type: tidemill.feast.engine.ArrowComputeEngine}\n"
DRIVERS, HOURS = 12, 60


def write_regular_data(root: Path) -> None:
    """A row for each driver or city and hour without ties, nulls or gaps: what every store answers alike."""
    random = np.random.default_rng(1)
    hours = np.repeat(np.arange(HOURS), DRIVERS)
    size = len(hours)
    stats = pl.DataFrame(
        {
            "driver_id": np.tile(np.arange(DRIVERS), HOURS),
            "event_timestamp": [at(float(hour) - HOURS) for hour in hours],
            "created": [at(float(hour) - HOURS + 0.1) for hour in hours],
            "trips_today": random.integers(0, 2**40, size),
            "rating": random.random(size),
            "car": random.choice(["van", "bus", "bike"], size),
        }
    )
    stats.write_parquet(root / "data" / "stats" / "one.parquet")
    weather = pl.DataFrame(
        {
            "city": np.tile(["ams", "ber"], HOURS),
            "hour": [at(float(hour) - HOURS) for hour in np.repeat(np.arange(HOURS), 2)],
            "rain": random.random(2 * HOURS),
        }
    )
    weather.write_parquet(root / "data" / "weather.parquet")
    pl.DataFrame({"at": [at(-99), at(-9)], "per_km": [1.0, 2.0]}).write_parquet(root / "data" / "rate.parquet")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The same repository twice: with our offline store, and with Feast's default one."""
    from feast import FeatureStore

    from tidemill.feast.apply import register
    from tidemill.feast.repository import opened_repository

    before, found = Path.cwd(), {}
    for name, kind in (("ours", OURS), ("feasts", "dask")):
        root = tmp_path_factory.mktemp(name) / "rides"
        (root / ".tidemill").mkdir(parents=True)
        text = CONFIGURATION.replace(OURS, kind).replace(ENGINE, "")
        (root / "feature_store.yaml").write_text(text.replace(ONLINE, "online_store: {type: sqlite, path: online.db}"))
        write_files(root)
        write_regular_data(root)
        os.chdir(root)  # Feast's own store reads paths from where one stands
        with opened_repository(root) as repository:
            register(repository)
        found[name] = FeatureStore(repo_path=str(root))
    os.chdir(found["feasts"].repo_path)
    yield found
    os.chdir(before)
    for name in ("definitions", "prices"):
        sys.modules.pop(name, None)


def asked_about() -> pd.DataFrame:
    random = np.random.default_rng(2)
    times = [at(-float(hour)) for hour in random.uniform(0, HOURS - 6, 200)]
    return pd.DataFrame(
        {
            "driver_id": random.integers(0, DRIVERS, 200),
            "city": random.choice(["ams", "ber"], 200),
            "km": random.random(200),
            "event_timestamp": pd.to_datetime(times, utc=True),
            "row": np.arange(200),
        }
    )


def history(store: Any, features: Any, **settings: Any) -> pd.DataFrame:
    found = store.get_historical_features(entity_df=asked_about(), features=features, **settings).to_df()
    return found.sort_values("row").reset_index(drop=True)


@pytest.mark.parametrize("full_names", [False, True])
def test_history_is_what_feasts_own_store_answers(stores: dict[str, Any], full_names: bool) -> None:
    features = ["stats:trips_today", "stats:rating", "stats:car", "weather:rain"]
    ours, theirs = (history(store, features, full_feature_names=full_names) for store in stores.values())

    assert ours["row"].tolist() == list(range(200))
    assert sorted(ours.columns) == sorted(theirs.columns)
    pd.testing.assert_frame_equal(ours, theirs[ours.columns], check_dtype=False)


def test_a_service_with_an_on_demand_view_is_answered_alike(stores: dict[str, Any]) -> None:
    ours, theirs = (history(store, store.get_feature_service("offer")) for store in stores.values())

    assert set(theirs.columns) >= {"price", "rain", "rating"}
    pd.testing.assert_frame_equal(ours[theirs.columns], theirs, check_dtype=False)


def test_rows_are_pulled_alike(stores: dict[str, Any]) -> None:
    pulled = []
    for store in stores.values():
        offline, columns = (
            store._get_provider().offline_store,
            ["driver_id", "trips_today", "event_timestamp", "created"],
        )
        asked: dict[str, Any] = {
            "config": store.config,
            "data_source": store.get_data_source("stats_file"),
            "join_key_columns": ["driver_id"],
            "feature_name_columns": ["trips_today"],
            "timestamp_field": "event_timestamp",
            "created_timestamp_column": "created",
            "start_date": at(-20),
            "end_date": at(-5),
        }
        newest = offline.pull_latest_from_table_or_query(**asked).to_df()
        everything = offline.pull_all_from_table_or_query(**asked).to_df()
        pulled.append([frame[columns].sort_values(columns).reset_index(drop=True) for frame in (newest, everything)])

    assert [len(frame) for frame in pulled[0]] == [DRIVERS, 16 * DRIVERS]
    for ours, theirs in zip(*pulled, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)


def test_the_online_store_is_filled_alike(stores: dict[str, Any]) -> None:
    rows = [{"driver_id": driver, "city": "ams"} for driver in range(DRIVERS)]
    names = ["stats:trips_today", "stats:car", "weather:rain"]
    found = []
    for store in stores.values():
        store.materialize(start_date=at(-48), end_date=NOON, feature_views=["stats", "weather"])
        found.append(store.get_online_features(features=names, entity_rows=rows).to_dict())

    assert found[0] == found[1]
    assert None not in found[0]["car"]


# What is ours alone


def test_a_lazy_frame_and_a_path_may_say_who_is_asked_about(store: Any, root: Path) -> None:
    frame = pl.DataFrame({"driver_id": [1], "event_timestamp": [at(0)]})
    frame.write_parquet(root / "spine.parquet")
    for spine in (frame.lazy(), root / "spine.parquet"):
        assert store.get_historical_features(entity_df=spine, features=["stats:car"]).to_polars()["car"].to_list() == [
            "van"
        ]


def test_a_range_over_views_of_different_keys_asks_for_each_views_own_rows(store: Any) -> None:
    job = store.get_historical_features(
        features=["stats:trips_today", "weather:rain", "rate:per_km"], start_date=at(-6), end_date=at(-0.75)
    )
    rows = job.to_polars().sort("event_timestamp", "city", "driver_id", nulls_last=True)

    assert rows.select("city", "driver_id", "trips_today", "rain", "per_km").rows() == [
        ("ber", None, None, 0.25, 1.0),
        (None, None, None, None, 2.0),
        (None, 1, 3, None, 2.0),
        ("ams", None, None, 0.5, 2.0),
        (None, 1, 5, None, 2.0),
        (None, 2, None, None, 2.0),
    ]


def test_a_range_over_nanoseconds_keeps_each_time_apart(store: Any, root: Path) -> None:
    first = int(at(-1).timestamp()) * 10**9
    hours = pl.Series([first + 1, first + 2, first + 2]).cast(pl.Datetime("ns", "UTC"))
    rows = pl.DataFrame({"city": ["ams"] * 3, "hour": hours, "rain": [1.0, 2.0, 3.0]})
    rows.write_parquet(root / "data" / "weather.parquet")
    job = store.get_historical_features(features=["weather:rain"], start_date=at(-2), end_date=at(0))

    assert job.to_polars()["rain"].to_list() == [1.0, 3.0]


def test_a_range_reads_windows_and_swapped_keys_too(store: Any, root: Path) -> None:
    windows = store.get_historical_features(features=["earned:earned_1h"], start_date=at(-4), end_date=at(0))

    assert windows.to_polars().select("driver_id", "earned_1h").rows() == [(1, 10.0), (1, 7.5), (2, 3.0)]


def test_a_saved_dataset_is_a_validation_reference_with_a_profiler(store: Any) -> None:
    from feast.dqm.errors import ValidationFailed
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
    from profiling import NothingMissingProfiler

    def job(*drivers: int) -> Any:
        spine = pd.DataFrame({"driver_id": list(drivers), "event_timestamp": [at(0)] * len(drivers)})
        return store.get_historical_features(entity_df=spine, features=["stats:trips_today", "stats:car"])

    storage = SavedDatasetFileStorage(path="data/reference.parquet")
    store.create_saved_dataset(from_=job(1), name="good_rows", storage=storage)
    reference = store.get_saved_dataset("good_rows").as_reference(name="whole", profiler=NothingMissingProfiler())

    for form in ("to_df", "to_arrow", "to_polars"):
        assert len(getattr(job(1, 1), form)(validation_reference=reference)) == 2
        with pytest.raises(ValidationFailed):
            getattr(job(1, 7), form)(validation_reference=reference)


def test_logged_features_are_validated_and_measured(store: Any) -> None:
    from feast.dqm.errors import ValidationFailed
    from feast.feature_logging import FeatureServiceLoggingSource
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
    from feast.monitoring.monitoring_service import MonitoringService
    from profiling import NothingMissingProfiler

    service = store.get_feature_service("offer")
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)

    def log(hours: float, rating: float | None) -> None:
        filled = {field.name: [None if field.name.endswith("rating") else 1] for field in schema}
        filled |= {"__log_timestamp": [at(hours)], "__log_date": [at(hours).date()], "__request_id": ["a"]}
        texts = {field.name: ["ams"] for field in schema if pa.types.is_string(field.type)}
        times = {field.name: [at(hours)] for field in schema if pa.types.is_timestamp(field.type)}
        rows = filled | texts | times | {"stats__rating": [rating]}
        store.write_logged_features(pa.Table.from_pydict(rows, schema=schema), service)

    log(-3, 4.5)
    log(-1, None)
    storage = SavedDatasetFileStorage(path="data/reference.parquet")
    spine = pd.DataFrame({"driver_id": [1], "event_timestamp": [at(0)]})
    job = store.get_historical_features(entity_df=spine, features=["stats:rating"], full_feature_names=True)
    store.create_saved_dataset(from_=job, name="good_rows", storage=storage)
    reference = store.get_saved_dataset("good_rows").as_reference(name="whole", profiler=NothingMissingProfiler())

    def validate(start: float, end: float) -> None:
        store.validate_logged_features(service, at(start), at(end), reference, cache_profile=False)

    validate(-4, -2)
    with pytest.raises(ValidationFailed):
        validate(-4, 0)
    monitoring = MonitoringService(store)
    monitoring.auto_compute_log_metrics(project="rides", feature_service_name="offer")
    (rated,) = monitoring.get_feature_metrics(
        project="rides", feature_view_name="stats", feature_name="rating", granularity="daily", data_source_type="log"
    )
    assert (rated["row_count"], rated["null_count"], rated["mean"]) == (2, 1, 4.5)


def test_a_saved_dataset_of_a_service_holds_its_on_demand_features(store: Any, root: Path) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    spine = pd.DataFrame({"driver_id": [1], "city": ["ams"], "km": [3.0], "event_timestamp": [at(0)]})
    for full in (False, True):
        job = store.get_historical_features(
            entity_df=spine, features=store.get_feature_service("offer"), full_feature_names=full
        )
        storage = SavedDatasetFileStorage(path=f"data/saved_{full}")
        store.create_saved_dataset(from_=job, name=f"offers_{full}", storage=storage)
        found = store.get_saved_dataset(f"offers_{full}").to_df()
        assert found["quote__price" if full else "price"].tolist() == [6.0]
        assert pl.read_parquet(root / "data" / f"saved_{full}").height == 1


def test_rows_for_the_offline_store_may_come_in_any_order_of_columns(store: Any, root: Path) -> None:
    before = (root / "data" / "weather.parquet").read_bytes()
    store.write_to_offline_store("weather", pd.DataFrame({"rain": [9.0], "hour": [at(-0.1)], "city": ["ams"]}))
    spine = pd.DataFrame({"city": ["ams"], "event_timestamp": [at(0)]})

    assert store.get_historical_features(entity_df=spine, features=["weather:rain"]).to_df()["rain"].tolist() == [9.0]
    assert (root / "data" / "weather.parquet").read_bytes() == before
