"""What Feast writes offline: pushes, logs, saved datasets. Files are added, never written again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from rides import NOON, at

from tidemill.errors import InputError

STATS = ["stats:trips_today", "stats:rating", "stats:car"]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")


def spine(*drivers: int, hours: float = 0) -> pd.DataFrame:
    return pd.DataFrame({"driver_id": list(drivers), "event_timestamp": [at(hours)] * len(drivers)})


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


def test_a_push_offline_adds_a_file_and_leaves_the_others(store: Any, root: Path) -> None:
    from feast.data_source import PushMode

    before = content(root / "data" / "position")
    row = pd.DataFrame({"driver_id": [1], "at": [at(-0.1)], "zone": ["south"]})
    store.push("positions", row, to=PushMode.ONLINE_AND_OFFLINE)
    after = content(root / "data" / "position")

    assert len(after) == len(before) + 1
    assert {name: after[name] for name in before} == before
    history = store.get_historical_features(entity_df=spine(1), features=["position:zone"]).to_polars()
    assert history["zone"].to_list() == ["south"]


def trips(*fares: float, minutes: float = 10) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "driver_id": [7] * len(fares),
            "at": [at(-minutes / 60)] * len(fares),
            "known": [at(-minutes / 60)] * len(fares),
            "fare": list(fares),
            "trip_id": [f"t{fare}" for fare in fares],
        }
    )


def windows_of(store: Any, *features: str) -> list[Any]:
    found = store.get_online_features([f"earned:{name}" for name in features], [{"driver_id": 7}]).to_dict()
    return [found[name][0] for name in features]


def test_feast_s_push_of_events_reaches_windows_and_counts_each_once(store: Any, root: Path) -> None:
    from feast.data_source import PushMode

    store.push("trips", trips(1.5, 2.0))
    store.push("trips", trips(2.0, 4.0), to=PushMode.ONLINE_AND_OFFLINE)
    assert windows_of(store, "earned_1h", "trips_1h") == [7.5, 3]
    assert windows_of(store, "trips_1h") == [3]
    history = store.get_historical_features(entity_df=spine(7), features=["earned:trips_1h"]).to_polars()
    assert history["trips_1h"].to_list() == [2]


def test_some_of_a_view_s_windows_are_read_from_the_tiles_of_all(store: Any, root: Path) -> None:
    store.push("trips", trips(1.5, 2.0))
    assert (windows_of(store, "trips_1h"), windows_of(store, "earned_1h")) == ([2], [3.5])


def test_feast_s_asynchronous_push_reaches_windows_too(store: Any, root: Path) -> None:
    asyncio.run(store.push_async("trips", trips(3.0)))
    assert windows_of(store, "earned_1h", "trips_1h") == [3.0, 1]


def test_feast_s_push_says_which_events_it_could_not_take(store: Any, root: Path) -> None:
    ahead = pd.concat([trips(1.0), trips(2.0, minutes=-60)])
    with pytest.raises(InputError, match="1 rows were not pushed, the first of them row 1: its event time is further"):
        store.push("trips", ahead)
    assert windows_of(store, "trips_1h") == [1]


def test_a_push_to_a_source_of_several_views_adds_its_rows_once(store: Any, root: Path) -> None:
    from feast import FeatureView, Field
    from feast.data_source import PushMode
    from feast.types import String

    position = store.get_feature_view("position")
    store.apply(
        [
            FeatureView(
                name="position_again",
                entities=[store.get_entity("driver")],
                source=store.get_data_source("positions"),
                schema=[Field(name="zone", dtype=String)],
            ),
            position,
        ]
    )
    row = pd.DataFrame({"driver_id": [3], "at": [at(-0.1)], "zone": ["east"]})
    store.push("positions", row, to=PushMode.OFFLINE)
    assert pl.read_parquet(root / "data" / "position").filter(driver_id=3).height == 1

    store.push("positions", row, to=PushMode.OFFLINE)
    assert pl.read_parquet(root / "data" / "position").filter(driver_id=3).height == 2, "a new push is a new push"


def test_events_of_a_windowed_view_can_be_pushed_offline(store: Any) -> None:
    from feast.data_source import PushMode

    trip = pd.DataFrame({"trip_id": ["z"], "driver_id": [2], "at": [at(-0.1)], "known": [at(-0.1)], "fare": [4.0]})
    store.push("trips", trip, to=PushMode.OFFLINE)
    history = store.get_historical_features(entity_df=spine(2), features=["earned:earned_1h"]).to_polars()

    assert history["earned_1h"].to_list() == [7.0]


def test_rows_of_another_shape_are_refused_and_nothing_is_written(store: Any, root: Path) -> None:
    before = content(root / "data" / "position")

    with pytest.raises(ValueError, match="zone"):
        store.write_to_offline_store("position", pd.DataFrame({"driver_id": [1], "at": [at(0)]}))
    with pytest.raises(InputError, match="zone"):
        store.write_to_offline_store("position", pd.DataFrame({"driver_id": [1], "at": [at(0)], "zone": [5]}))
    assert content(root / "data" / "position") == before


def test_all_and_newest_rows_can_be_pulled(store: Any) -> None:
    offline, source = store._get_provider().offline_store, store.get_data_source("stats_file")
    asked: dict[str, Any] = {
        "config": store.config,
        "data_source": source,
        "join_key_columns": ["driver_id"],
        "feature_name_columns": ["trips_today"],
        "timestamp_field": "event_timestamp",
        "created_timestamp_column": "created",
        "start_date": at(-2),
        "end_date": at(0),
    }
    everything = offline.pull_all_from_table_or_query(**asked).to_polars()
    newest = offline.pull_latest_from_table_or_query(**asked).to_polars()

    assert everything.height == 5
    assert newest.sort("driver_id").select("driver_id", "trips_today").rows() == [(1, 5), (2, None)]
    assert newest.schema["trips_today"] == pl.Int64


def test_served_features_are_logged_and_read_back(store: Any) -> None:
    from feast.feature_logging import FeatureServiceLoggingSource

    service = store.get_feature_service("offer")
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    rows = {field.name: [None, None] for field in schema}
    rows |= {"driver_id": [1, 2], "__log_timestamp": [NOON, NOON + timedelta(minutes=1)], "__request_id": ["a", "b"]}
    for _ in range(2):
        store.write_logged_features(pa.Table.from_pydict(rows, schema=schema), service)
    job = store._get_provider().retrieve_feature_service_logs(
        service, NOON, NOON + timedelta(seconds=30), store.config, store.registry
    )

    assert job.to_polars()["driver_id"].to_list() == [1, 1]


def test_a_dataset_is_saved_beside_the_repository_and_read_back(
    store: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    monkeypatch.chdir(tmp_path)
    job = store.get_historical_features(entity_df=spine(1, 2), features=STATS)
    storage = SavedDatasetFileStorage(path="data/saved.parquet")
    store.create_saved_dataset(from_=job, name="training", storage=storage)
    again = store.get_saved_dataset("training").to_df()

    assert (root / "data" / "saved.parquet").exists()
    assert not (tmp_path / "data").exists()
    assert again["trips_today"].tolist() == [5, pd.NA]


def test_a_saved_dataset_is_not_overwritten_unless_asked(store: Any, root: Path) -> None:
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    job = store.get_historical_features(entity_df=spine(1), features=STATS)
    for path in ("data/saved.parquet", "data/saved"):
        storage = SavedDatasetFileStorage(path=path)
        job.persist(storage)
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            job.persist(storage)
        job.persist(storage, allow_overwrite=True)
        assert pl.read_parquet(root / path).height == 1


class _NothingMissing:
    """A validation reference as Feast asks for it: rows without a missing value pass."""

    @property
    def profile(self) -> _NothingMissing:
        return self

    def validate(self, dataset: pd.DataFrame) -> SimpleNamespace:
        missing = [name for name in dataset if dataset[name].isna().any()]
        return SimpleNamespace(is_success=not missing, errors=missing)


def test_a_validation_reference_is_held_against_a_retrieval(store: Any) -> None:
    from feast.dqm.errors import ValidationFailed

    good = store.get_historical_features(entity_df=spine(1), features=STATS)
    bad = store.get_historical_features(entity_df=spine(2), features=STATS)

    assert good.to_df(validation_reference=_NothingMissing()).shape == (1, 5)
    with pytest.raises(ValidationFailed):
        bad.to_df(validation_reference=_NothingMissing())


def test_a_delta_table_is_a_source_like_any_other(store: Any, root: Path) -> None:
    from deltalake import write_deltalake
    from feast import FeatureView, Field, FileSource
    from feast.data_format import DeltaFormat
    from feast.types import Float64

    write_deltalake(root / "data" / "fuel", pl.DataFrame({"city": ["ams"], "at": [at(-1)], "euro": [1.9]}).to_arrow())
    source = FileSource(name="fuel_table", path="data/fuel", timestamp_field="at", file_format=DeltaFormat())
    fuel = FeatureView(
        name="fuel",
        entities=[store.get_entity("city")],
        source=source,
        schema=[Field(name="euro", dtype=Float64)],
    )
    store.apply([source, fuel])
    asked = pd.DataFrame({"city": ["ams"], "event_timestamp": [at(0)]})

    assert store.get_historical_features(entity_df=asked, features=["fuel:euro"]).to_polars()["euro"].to_list() == [1.9]


def test_names_in_the_file_are_mapped(store: Any, root: Path) -> None:
    from feast import FeatureView, Field, FileSource
    from feast.types import Float64

    pl.DataFrame({"city": ["ams"], "ts": [at(-1)], "p": [1.9]}).write_parquet(root / "data" / "fuel.parquet")
    source = FileSource(
        name="fuel_file", path="data/fuel.parquet", timestamp_field="at", field_mapping={"ts": "at", "p": "euro"}
    )
    city = store.get_entity("city")
    fuel = FeatureView(name="fuel", entities=[city], source=source, schema=[Field(name="euro", dtype=Float64)])
    store.apply([source, fuel])
    asked = pd.DataFrame({"city": ["ams"], "event_timestamp": [at(0)]})
    store.materialize(start_date=at(-48), end_date=at(0), feature_views=["fuel"])

    assert store.get_historical_features(entity_df=asked, features=["fuel:euro"]).to_polars()["euro"].to_list() == [1.9]
    assert store.get_online_features(features=["fuel:euro"], entity_rows=[{"city": "ams"}]).to_dict()["euro"] == [1.9]
