"""Feast's historical retrieval through `PolarsOfflineStore`. Each of these fails on one of Feast's own stores."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from rides import at

from tidemill.errors import NotDefinedError, SourceError, SpineError

STATS = ["stats:trips_today", "stats:rating", "stats:car"]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")


def asked(store: Any, spine: Any, features: Any = STATS, **settings: Any) -> pl.DataFrame:
    return store.get_historical_features(entity_df=spine, features=features, **settings).to_polars()


def drivers(*rows: tuple[int | None, float]) -> pd.DataFrame:
    """A spine of (driver, hours from noon)."""
    keys = pd.array([driver for driver, _ in rows], dtype="Int64")
    return pd.DataFrame({"driver_id": keys, "event_timestamp": [at(hours) for _, hours in rows]})


def test_every_spine_row_comes_back_once_and_in_order(store: Any) -> None:
    spine = drivers((1, 0), (7, 0), (1, -3), (1, 0), (1, 9), (2, 0))
    found = asked(store, spine)

    assert found["driver_id"].to_list() == [1, 7, 1, 1, 1, 2], "unknown, future and expired rows stay, duplicates too"
    assert found["car"].to_list() == ["van", None, None, "van", None, "bus"]


def test_labels_of_rows_with_equal_key_and_time_survive(store: Any) -> None:
    spine = drivers((1, 0), (1, 0)).assign(label=[0, 1])

    assert asked(store, spine)["label"].to_list() == [0, 1]


def test_columns_come_in_the_order_asked_for(store: Any) -> None:
    features = ["stats:car", "quote:price", "weather:rain", "stats:trips_today"]
    spine = drivers((1, 0)).assign(city="ams", km=3.0)
    columns = asked(store, spine, features).columns

    assert columns[:4] == ["driver_id", "event_timestamp", "city", "km"]
    assert columns[4:8] == ["car", "price", "rain", "trips_today"]


def test_ties_in_event_time_go_to_the_row_learned_last(store: Any) -> None:
    assert asked(store, drivers((1, -0.25)))["trips_today"].to_list() == [5]


def test_known_times_bind_only_when_feast_asks_for_it(store: Any) -> None:
    spine = drivers((1, -0.75))

    assert asked(store, spine)["trips_today"].to_list() == [5], "without the flag Feast sees the correction early"
    assert asked(store, spine, filter_by_created_timestamp=True)["trips_today"].to_list() == [4]


def test_exactly_ttl_old_still_counts(store: Any) -> None:
    second = 1 / 3600

    assert asked(store, drivers((1, 5)))["car"].to_list() == ["van"]
    assert asked(store, drivers((1, 5 + second)))["car"].to_list() == [None]


def test_whole_numbers_stay_whole_with_missing_values(store: Any) -> None:
    job = store.get_historical_features(entity_df=drivers((1, 0), (2, 0)), features=STATS)

    assert job.to_arrow().schema.field("trips_today").type == pa.int64()
    assert job.to_df()["trips_today"].tolist() == [5, pd.NA]
    assert str(job.to_df()["trips_today"].dtype) == "Int64"
    assert job.to_polars().schema["trips_today"] == pl.Int64


def test_nan_is_not_null(store: Any) -> None:
    ratings = asked(store, drivers((2, 0), (7, 0)))["rating"].to_list()

    assert ratings[0] != ratings[0]
    assert ratings[1] is None


def test_a_null_key_matches_nothing(store: Any) -> None:
    assert asked(store, drivers((None, 0)))["car"].to_list() == [None]


def test_a_spine_column_named_like_the_sources_time_is_left_alone(store: Any) -> None:
    spine = pd.DataFrame({"city": ["ams"], "hour": [at(-9)], "event_timestamp": [at(0)]})
    found = asked(store, spine, ["weather:rain"])

    assert found["rain"].to_list() == [0.5], "the source's `hour` decides, not the spine's"
    assert found["hour"].to_list() == [at(-9)]


@pytest.mark.parametrize(
    "times",
    [
        ["2024-03-05T12:00:00Z", "2024-03-05T13:00:00+01:00"],
        ["2024-03-05 12:00:00", "2024-03-05 12:00:00"],
        [at(0), at(0).astimezone(timezone(timedelta(hours=5)))],
        [at(0).replace(tzinfo=None), at(0).replace(tzinfo=None)],
    ],
    ids=["text", "text without a zone", "mixed offsets", "naive is UTC"],
)
def test_request_times_may_be_written_in_many_ways(store: Any, times: list[Any]) -> None:
    spine = pd.DataFrame({"driver_id": [1, 1], "event_timestamp": pd.Series(times, dtype=object)})

    assert asked(store, spine)["trips_today"].to_list() == [5, 5]


def test_dates_are_midnights_in_utc(store: Any) -> None:
    day = (at(0) + timedelta(hours=12)).date()
    spine = pd.DataFrame({"at": [day], "event_timestamp": [day]})

    assert asked(store, spine, ["rate:per_km"])["per_km"].to_list() == [2.0]


@pytest.mark.parametrize("kind", ["polars", "arrow", "parquet", "sql"])
def test_a_spine_may_be_what_the_caller_has(store: Any, root: Path, kind: str) -> None:
    frame = pl.DataFrame({"driver_id": [1], "event_timestamp": [at(0)]})
    frame.write_parquet(root / "spine.parquet")
    spine: Any = {
        "polars": frame,
        "arrow": frame.to_arrow(),
        "parquet": "spine.parquet",
        "sql": "SELECT driver_id, MAX(at) AS event_timestamp FROM trips_file WHERE driver_id = 1 GROUP BY driver_id",
    }[kind]

    assert asked(store, spine)["car"].to_list() == ["van"]


def test_full_feature_names_carry_the_view(store: Any) -> None:
    spine = drivers((1, 0)).assign(city="ams", km=3.0)
    found = asked(store, spine, store.get_feature_service("offer"), full_feature_names=True)

    assert found["stats__trips_today"].to_list() == [5]
    assert found["quote__price"].to_list() == [6.0]


def test_aliases_and_key_maps_read_one_view_twice(store: Any) -> None:
    from feast import FeatureService

    weather = store.get_feature_view("weather")
    trip = FeatureService(
        name="trip",
        features=[
            weather.with_name("start").with_join_key_map({"city": "start_city"}),
            weather.with_name("finish").with_join_key_map({"city": "finish_city"}),
        ],
    )
    store.apply([trip])
    spine = pd.DataFrame({"start_city": ["ams"], "finish_city": ["ber"], "event_timestamp": [at(-2.5)]})
    found = asked(store, spine, store.get_feature_service("trip"), full_feature_names=True)

    assert found.select("start__rain", "finish__rain").row(0) == (None, 0.25)


def test_a_view_without_entities_has_one_history(store: Any) -> None:
    spine = pd.DataFrame({"event_timestamp": [at(-31), at(-29), at(0)]})

    assert asked(store, spine, ["rate:per_km"])["per_km"].to_list() == [None, 1.0, 2.0]


def test_windows_are_summed_up_to_each_request(store: Any) -> None:
    found = asked(store, drivers((1, -2), (1, -1), (1, 0), (2, 0), (9, 0)), ["earned:earned_1h", "earned:trips_1h"])

    assert found["earned_1h"].to_list() == [10.0, 10.0, 7.5, 3.0, None]
    assert found["trips_1h"].to_list() == [1, 1, 1, 1, 0]


def test_without_a_spine_each_key_and_time_of_the_range_is_a_row(store: Any) -> None:
    job = store.get_historical_features(features=STATS, start_date=at(-1.5), end_date=at(0))
    found = job.to_polars()

    assert found.columns == ["driver_id", "event_timestamp", "trips_today", "rating", "car"]
    assert found.select("driver_id", "trips_today").rows() == [(1, 5), (2, None)]


def test_without_an_end_the_range_ends_now_whatever_the_local_zone(store: Any, root: Path) -> None:
    now = datetime.now(UTC)
    rows = pl.DataFrame(
        {"city": ["now", "later"], "hour": [now - timedelta(minutes=5), now + timedelta(hours=5)], "rain": [1.0, 2.0]}
    )
    rows.write_parquet(root / "data" / "weather.parquet")
    before = os.environ.get("TZ")
    try:
        for zone in ("America/Los_Angeles", "Asia/Tokyo"):
            os.environ["TZ"] = zone
            time.tzset()
            found = store.get_historical_features(features=["weather:rain"], start_date=now - timedelta(hours=1))
            assert found.to_polars()["city"].to_list() == ["now"]
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


@pytest.mark.parametrize("name", ["rn", "rain_y", "event_timestamp_x", "__entity_row_id"])
def test_feature_columns_may_have_any_name(store: Any, root: Path, name: str) -> None:
    from feast import Field
    from feast.types import Float64

    pl.DataFrame({"city": ["ams"], "hour": [at(-1)], name: [0.5]}).write_parquet(root / "data" / "weather.parquet")
    view = store.get_feature_view("weather")
    view.features = [Field(name=name, dtype=Float64)]
    store.registry.apply_feature_view(view, store.project)
    store.refresh_registry()
    spine = pd.DataFrame({"city": ["ams"], "event_timestamp": [at(0)]})

    assert asked(store, spine, [f"weather:{name}"])[name].to_list() == [0.5]


def test_paths_are_read_from_the_repository_and_not_from_where_one_stands(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert asked(store, drivers((1, 0)))["car"].to_list() == ["van"]


def test_the_registry_is_the_same_from_everywhere(
    store: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast import FeatureStore

    monkeypatch.chdir(tmp_path)
    names = {view.name for view in FeatureStore(repo_path="rides").list_feature_views()}

    assert {"stats", "weather", "rate"} <= names
    assert not (tmp_path / ".tidemill").exists()


def test_an_unknown_feature_is_named(store: Any) -> None:
    with pytest.raises((NotDefinedError, KeyError), match="trips"):
        asked(store, drivers((1, 0)), ["stats:trips"])


def test_a_spine_without_its_key_is_refused(store: Any) -> None:
    with pytest.raises(SpineError, match="driver_id"):
        asked(store, pd.DataFrame({"event_timestamp": [at(0)]}))


def test_a_missing_source_is_named(store: Any, root: Path) -> None:
    (root / "data" / "weather.parquet").unlink()

    with pytest.raises(SourceError, match="weather_file"):
        asked(store, pd.DataFrame({"city": ["ams"], "event_timestamp": [at(0)]}), ["weather:rain"])


def test_features_of_types_that_are_not_asked_for_do_no_harm(store: Any, root: Path) -> None:
    from feast import FeatureView, Field
    from feast.types import Float64, Uuid

    view = FeatureView(
        name="tagged_weather",
        entities=[store.get_entity("city")],
        source=store.get_data_source("weather_file"),
        schema=[Field(name="rain", dtype=Float64), Field(name="station", dtype=Uuid)],
    )
    store.apply([view])
    asked_about = pd.DataFrame({"city": ["ams"], "event_timestamp": [at(0)]})

    assert asked(store, asked_about, ["tagged_weather:rain"])["rain"].to_list() == [0.5]


def test_features_of_any_type_come_as_their_file_holds_them(store: Any, root: Path) -> None:
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Array, ImageBytes, Int64, Uuid

    rows = {
        "sensor": ["0ce02f29-427a-44f3-ae82-0a3286d8b447", "5414848d-77b4-4649-8fdb-a1e03ac8c814"],
        "at": [at(-1), at(-1)],
        "twin": ["5414848d-77b4-4649-8fdb-a1e03ac8c814", None],
        "grid": [[[1], [2, 3]], []],
        "picture": [b"\x00\xff", b""],
    }
    pl.DataFrame(rows).write_parquet(root / "data" / "sensors.parquet")
    sensor = Entity(name="sensor", join_keys=["sensor"], value_type=ValueType.UUID)
    source = FileSource(name="sensors_file", path="data/sensors.parquet", timestamp_field="at")
    types = {"twin": Uuid, "grid": Array(Array(Int64)), "picture": ImageBytes}
    schema = [Field(name=name, dtype=dtype) for name, dtype in types.items()]
    store.apply([sensor, source, FeatureView(name="sensors", entities=[sensor], source=source, schema=schema)])
    spine = pd.DataFrame({"sensor": [*rows["sensor"], "nobody"], "event_timestamp": [at(0)] * 3})

    found = asked(store, spine, [f"sensors:{name}" for name in types])
    assert {name: found[name].to_list() for name in types} == {name: [*rows[name], None] for name in types}
