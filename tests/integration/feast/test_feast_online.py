"""Feast's online reads, writes and materialization through our plug-ins. Each fails on Feast's own Redis store."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from processes import together
from rides import NOON, at
from waiting import PATIENT

import tidemill
from tidemill.errors import InputError, OnlineStoreUnavailableError
from tidemill.online.embedded import EmbeddedRedis

STATS = ["stats:trips_today", "stats:rating", "stats:car"]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4


def load(store: Any, *views: str, until: float = 0) -> None:
    store.materialize(start_date=at(-48), end_date=at(until), feature_views=list(views) or None)


def read(store: Any, features: Any, **keys: list[Any]) -> Any:
    return store.get_online_features(features=features, entity_rows=keys_as_rows(keys))


def keys_as_rows(keys: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]


def applied_to_a_file(root: Path) -> None:
    """Feast's apply with another registry than the fixture's."""
    from tidemill.feast.apply import register
    from tidemill.feast.repository import opened_repository

    with opened_repository(root) as repository:
        register(repository)


def statuses(response: Any) -> dict[str, list[int]]:
    names = response.proto.metadata.feature_names.val
    return {name: list(vector.statuses) for name, vector in zip(names, response.proto.results, strict=True)}


def test_materialized_values_are_what_history_says(store: Any) -> None:
    load(store)
    keys = {"driver_id": [1, 2], "city": ["ams", "ams"], "km": [3.0, 4.0]}
    service = store.get_feature_service("offer")
    online = read(store, service, **keys).to_dict()
    spine = pd.DataFrame(keys).assign(event_timestamp=at(0))
    history = store.get_historical_features(entity_df=spine, features=service).to_polars()

    assert {name: online[name] for name in ("trips_today", "rain", "price")} == {
        "trips_today": [5, None],
        "rain": [0.5, 0.5],
        "price": [6.0, 8.0],
    }
    for name in ("trips_today", "rain", "price"):
        assert online[name] == history[name].to_list()


def test_every_value_says_how_good_it_is(store: Any) -> None:
    load(store)
    found = read(store, [*STATS, "weather:rain"], driver_id=[1, 2, 77], city=["ams", "ber", "rio"])

    assert statuses(found)["trips_today"] == [PRESENT, NULL_VALUE, NOT_FOUND]
    assert statuses(found)["rain"] == [PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND]
    assert found.to_dict()["rain"] == [0.5, None, None]


def test_a_value_grows_too_old_by_the_projects_clock(store: Any, root: Path) -> None:
    load(store, "weather")
    assert read(store, ["weather:rain"], city=["ams"]).to_dict()["rain"] == [0.5]

    tidemill.open(root).clock.set(at(2.5))
    found = read(store, ["weather:rain"], city=["ams"])
    assert statuses(found)["rain"] == [OUTSIDE_MAX_AGE]


def test_columns_come_in_the_order_asked_for_in_every_process(root: Path, store: Any) -> None:
    load(store)
    script = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from feast import FeatureStore\n"
        f"store = FeatureStore(repo_path={str(root)!r})\n"
        "features = ['stats:car', 'weather:rain', 'stats:trips_today', 'quote:price', 'stats:rating']\n"
        "rows = [{'driver_id': 1, 'city': 'ams', 'km': 1.0}]\n"
        "print(list(store.get_online_features(features=features, entity_rows=rows).to_dict()))\n"
    )
    environment = os.environ | PATIENT | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    order = ["city", "driver_id", "car", "rain", "trips_today", "price", "rating"]
    features = ["stats:car", "weather:rain", "stats:trips_today", "quote:price", "stats:rating"]

    assert list(read(store, features, driver_id=[1], city=["ams"], km=[1.0]).to_dict()) == order
    assert done.stdout.strip().endswith(str(order))


def test_a_correction_reaches_the_store_and_an_older_fact_does_not(store: Any, root: Path) -> None:
    load(store, "stats")
    more = pl.DataFrame(
        {
            "driver_id": [1, 2],
            "event_timestamp": [at(-1), at(-1.5)],
            "created": [at(1), at(1)],
            "trips_today": [6, 1],
            "rating": [4.8, 1.0],
            "car": ["van", "old"],
        }
    )
    more.write_parquet(root / "data" / "stats" / "two.parquet")
    tidemill.open(root).clock.set(at(2))
    load(store, "stats", until=2)

    found = read(store, STATS, driver_id=[1, 2]).to_dict()
    assert found["trips_today"] == [6, None]
    assert found["car"] == ["van", "bus"]


def test_a_pushed_row_is_read_at_once(store: Any, root: Path) -> None:
    row = pd.DataFrame({"driver_id": [1], "at": [at(-0.1)], "zone": ["south"]})
    store.push("positions", row)
    assert read(store, ["position:zone"], driver_id=[1]).to_dict()["zone"] == ["south"]

    load(store, "position")
    assert read(store, ["position:zone"], driver_id=[1]).to_dict()["zone"] == ["south"], "history is older"


def test_a_null_key_is_left_out_and_the_rest_is_written(store: Any) -> None:
    load(store, "stats")

    assert read(store, STATS, driver_id=[1]).to_dict()["car"] == ["van"]


def test_whole_numbers_keep_their_last_digit(store: Any, root: Path) -> None:
    big = 2**53 + 1
    rows = {"driver_id": [5, 6], "event_timestamp": [at(-1)] * 2, "created": [at(-1)] * 2, "trips_today": [big, None]}
    frame = pl.DataFrame(rows | {"rating": [1.0, 1.0], "car": ["a", "b"]})
    frame.write_parquet(root / "data" / "stats" / "two.parquet")
    load(store, "stats")

    assert read(store, STATS, driver_id=[5, 6]).to_dict()["trips_today"] == [big, None]


def test_a_view_without_entities_is_materialized(store: Any) -> None:
    load(store, "rate")

    assert read(store, ["rate:per_km", "stats:car"], driver_id=[1]).to_dict()["per_km"] == [2.0]


def test_windows_slide_on_between_reads(store: Any, root: Path) -> None:
    load(store, "earned")
    windows = ["earned:earned_1h", "earned:trips_1h"]
    now = read(store, windows, driver_id=[1, 2, 9]).to_dict()
    assert now["earned_1h"] == [7.5, 3.0, None]
    assert now["trips_1h"][:2] == [1, 1]

    tidemill.open(root).clock.set(at(0.65))
    later = read(store, windows, driver_id=[1, 2]).to_dict()
    assert later["earned_1h"] == [None, 3.0]
    assert later["trips_1h"] == [0, 1]


def test_values_of_windows_cannot_be_written(store: Any) -> None:
    row = pd.DataFrame({"driver_id": [1], "at": [at(0)], "known": [at(0)], "earned_1h": [1.0], "trips_1h": [1]})

    with pytest.raises(InputError, match="Push the events"):
        store.write_to_online_store("earned", row)


def test_nanosecond_files_of_pandas_are_materialized(store: Any, root: Path) -> None:
    frame = pd.DataFrame({"city": ["ams"], "hour": pd.to_datetime([at(-0.5)]).as_unit("ns"), "rain": [0.75]})
    frame.to_parquet(root / "data" / "weather.parquet")
    load(store, "weather")

    assert read(store, ["weather:rain"], city=["ams"]).to_dict()["rain"] == [0.75]


def test_taking_down_a_project_leaves_its_namesake_alone(root: Path, store: Any) -> None:
    from redis import Redis

    load(store, "stats")
    client = Redis.from_url(tidemill.open(root).redis_address())
    (key, *_rest) = list(client.scan_iter(b"*rides"))
    other = key.replace(b"rides", b"my_rides")
    client.hset(other, "_ts:stats", b"1")
    store.teardown()

    assert client.exists(other) == 1
    assert [key for key in client.scan_iter(b"*") if not key.endswith(b"my_rides")] == []


def test_a_view_that_is_removed_takes_its_data_along(root: Path, store: Any) -> None:
    from redis import Redis

    load(store, "stats", "position")
    store.apply([], objects_to_delete=[store.get_feature_view("stats")], partial=False)
    client = Redis.from_url(tidemill.open(root).redis_address())
    fields = {field for key in client.scan_iter(b"*rides") for field in client.hkeys(key)}

    assert b"_ts:position" in fields
    assert b"_ts:stats" not in fields


def test_reads_go_on_while_a_second_materialization_has_the_view(root: Path) -> None:
    from feast import FeatureStore
    from feast.feature_view import FeatureViewState

    file = root / "feature_store.yaml"
    sql = 'registry: {registry_type: sql, path: "sqlite:///.tidemill/registry.db"}'
    file.write_text(file.read_text().replace(sql, "registry: .tidemill/registry.pb"))
    applied_to_a_file(root)
    store = FeatureStore(repo_path=str(root))
    load(store, "stats")
    store._transition_fv_to_materializing(store.get_feature_view("stats"), [], {})
    reader = FeatureStore(repo_path=str(root))

    assert reader.get_feature_view("stats").state is FeatureViewState.MATERIALIZING
    assert read(reader, STATS, driver_id=[1]).to_dict()["car"] == ["van"]


def test_an_unreachable_redis_is_said_so(root: Path, store: Any) -> None:
    load(store, "stats")
    read(store, STATS, driver_id=[1])
    EmbeddedRedis(tidemill.open(root).redis_folder).stop()

    with pytest.raises(OnlineStoreUnavailableError):
        read(store, STATS, driver_id=[1])


def test_incremental_materialization_goes_on_where_it_stopped(store: Any, root: Path) -> None:
    store.materialize_incremental(end_date=NOON, feature_views=["weather"])
    frame = pl.DataFrame({"city": ["ams", "ber"], "hour": [at(1), at(1)], "rain": [9.0, 8.0]})
    frame.write_parquet(root / "data" / "weather.parquet")
    tidemill.open(root).clock.set(at(2))
    store.materialize_incremental(end_date=NOON + timedelta(hours=2), feature_views=["weather"])

    assert read(store, ["weather:rain"], city=["ams", "ber"]).to_dict()["rain"] == [9.0, 8.0]


def test_late_rows_of_a_finished_interval_are_loaded_by_the_next_run(root: Path) -> None:
    from feast import FeatureStore

    from tidemill.feast.apply import apply

    project = tidemill.open(root)
    apply(project, at=NOON)
    store = FeatureStore(repo_path=str(root))
    load(store, "stats")
    late = {"driver_id": [8], "event_timestamp": [at(-4)], "created": [at(1)], "trips_today": [1], "rating": [5.0]}
    pl.DataFrame(late | {"car": ["late"]}).write_parquet(root / "data" / "stats" / "two.parquet")
    project.clock.set(at(1.5))
    store.materialize_incremental(end_date=at(1.5), feature_views=["stats"])

    assert read(store, STATS, driver_id=[8]).to_dict()["car"] == ["late"]
    assert project.ledger.last_cutoff("stats") == at(1.5)


APPLY = """
import sys
from feast import FeatureStore, FeatureView, Field
from feast.types import String

root, *names = sys.argv[1:]
store = FeatureStore(repo_path=root)
input("ready\\n")
for name in names:
    entity, source = store.get_entity("driver"), store.get_data_source("position_file")
    store.apply(FeatureView(name=name, entities=[entity], source=source, schema=[Field(name="zone", dtype=String)]))
"""


def test_processes_that_apply_at_once_lose_no_view(root: Path, store: Any) -> None:
    names = [[f"view_{process}_{number}" for number in range(4)] for process in range(3)]
    together(APPLY, [[str(root), *some] for some in names])
    store.refresh_registry()

    assert {name for some in names for name in some} <= {view.name for view in store.list_feature_views()}


def test_async_reads_answer_like_the_others(store: Any) -> None:
    load(store)
    rows = [{"driver_id": 1, "city": "ams", "km": 3.0}]
    service = store.get_feature_service("offer")
    found = asyncio.run(store.get_online_features_async(features=service, entity_rows=rows))

    assert found.to_dict() == store.get_online_features(features=service, entity_rows=rows).to_dict()


def test_on_demand_features_that_feast_keeps_are_written_and_read(store: Any) -> None:
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.types import Int64

    view = OnDemandFeatureView(
        name="kept",
        entities=[store.get_entity("driver")],
        sources=[RequestSource(name="bonus_request", schema=[Field(name="bonus", dtype=Int64)])],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="doubled", dtype=Int64)],
        udf=doubled,
        udf_string="def doubled(inputs):\n    return {'doubled': [2 * bonus for bonus in inputs['bonus']]}\n",
        mode="python",
        write_to_online_store=True,
    )
    store.apply([view])
    load(store, "stats")
    store.write_to_online_store("kept", pd.DataFrame({"driver_id": [1], "bonus": [21], "event_timestamp": [at(0)]}))
    found = store.get_online_features(["kept:doubled", "stats:car"], [{"driver_id": 1, "bonus": 1}]).to_dict()

    assert found["doubled"] == [42]
    assert found["car"] == ["van"]


def doubled(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"doubled": [2 * bonus for bonus in inputs["bonus"]]}
