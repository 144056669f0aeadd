"""Reading and writing plain views: values, statuses, ttl, freshness, types, and what happens to bad input."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions import (
    Catalog,
    CodeReference,
    Entity,
    Feature,
    Freshness,
    OnDemandInput,
    OnDemandView,
    Projection,
    RequestField,
    Service,
    StalePolicy,
    ValueType,
    View,
)
from tidemill.definitions.code import _digest
from tidemill.errors import (
    DefinitionError,
    InputError,
    NotDefinedError,
    OnlineStoreUnavailableError,
    StaleFeaturesError,
)
from tidemill.online.keys import check_field_hashes, hash_field, key_layout
from tidemill.online.store import OnlineStore, Status
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def feature(name: str, dtype: ValueType = ValueType.DOUBLE) -> Feature:
    return Feature(name=name, dtype=dtype)


def view(name: str, *features: Feature, entities: tuple[str, ...] = ("origin",), **more: Any) -> View:
    keys = {"origin": "origin", "plane": "tail"}
    return View(
        name=name,
        entities=entities,
        join_keys=tuple(keys[entity] for entity in entities),
        features=features,
        source="s",
        **more,
    )


def catalog(*views: View, on_demand: tuple[OnDemandView, ...] = (), services: tuple[Service, ...] = ()) -> Catalog:
    return Catalog(
        project="prod",
        entities=(
            Entity(name="origin", join_key="origin", dtype=ValueType.STRING),
            Entity(name="plane", join_key="tail", dtype=ValueType.INT64),
        ),
        views=views,
        on_demand_views=on_demand,
        services=services
        or (
            Service(
                name="all",
                projections=tuple(Projection(view=v.name, features=tuple(f.name for f in v.features)) for v in views),
            ),
        ),
    )


@pytest.fixture(params=["feast", "packed"])
def make(request: pytest.FixtureRequest, address: str, tmp_path: Path):
    stores: list[OnlineStore] = []

    def build(found: Catalog, **settings: Any) -> OnlineStore:
        settings.setdefault("online_layout", request.param)
        store = OnlineStore(
            address=address,
            project=found.project,
            catalog=found,
            settings=Settings(**settings),
            root=tmp_path,
            clock=ManualClock(T0),
        )
        stores.append(store)
        return store

    yield build
    for store in stores:
        store.close()


def rows(*items: dict[str, Any], event: datetime = T0, known: datetime | None = None, **types: Any) -> pl.DataFrame:
    frame = pl.DataFrame(items, schema_overrides=types, infer_schema_length=None)
    times = [pl.lit(event).alias("__event_time"), pl.lit(known or event).alias("__known_time")]
    return frame.with_columns(pl.col(pl.Null).cast(pl.Float64)).with_columns(
        [time.cast(pl.Datetime("us", "UTC")) for time in times]
    )


WEATHER = view("weather", feature("temp"), feature("wind", ValueType.INT64))


def test_what_was_written_is_read_in_the_order_asked_for(make):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}, {"origin": "LGA", "temp": 1.5, "wind": 8}))
    found = store.read("all", [{"origin": "LGA"}, {"origin": "JFK"}, {"origin": "LGA"}])
    assert found.names == ("temp", "wind")
    assert found.to_dict() == {"temp": [1.5, 20.5, 1.5], "wind": [8, 7, 8]}
    assert list(found.statuses["wind"]) == [Status.PRESENT] * 3
    assert list(found.event_times["temp"]) == [to_micros(T0)] * 3
    assert store.read_features(["weather:wind", "weather:temp"], [{"origin": "JFK"}]).names == ("wind", "temp")


def test_an_entity_never_written_is_not_found(make):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    found = store.read("all", [{"origin": "???"}, {"origin": "JFK"}])
    assert found.values["temp"] == [None, 20.5]
    assert list(found.statuses["temp"]) == [Status.NOT_FOUND, Status.PRESENT]
    assert list(found.event_times["temp"]) == [None, to_micros(T0)]


def test_a_view_never_written_for_an_entity_is_not_found_though_another_is(make):
    store = make(catalog(WEATHER, view("delays", feature("late"))))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    found = store.read("all", [{"origin": "JFK"}])
    assert list(found.statuses["late"]) == [Status.NOT_FOUND]
    assert list(found.statuses["temp"]) == [Status.PRESENT]


def test_a_null_is_a_null_value_and_nan_is_a_value(make):
    store = make(catalog(WEATHER))
    store.write(
        "weather",
        rows({"origin": "JFK", "temp": None, "wind": 7}, {"origin": "LGA", "temp": float("nan"), "wind": None}),
    )
    found = store.read("all", [{"origin": "JFK"}, {"origin": "LGA"}])
    assert list(found.statuses["temp"]) == [Status.NULL_VALUE, Status.PRESENT]
    assert found.values["temp"][0] is None
    assert found.values["temp"][1] != found.values["temp"][1]
    assert list(found.statuses["wind"]) == [Status.PRESENT, Status.NULL_VALUE]


def test_exactly_ttl_old_still_counts_and_a_microsecond_more_does_not(make):
    store = make(catalog(view("weather", feature("temp"), ttl=HOUR)))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5}))
    inside = store.read("all", [{"origin": "JFK"}], at=T0 + HOUR)
    outside = store.read("all", [{"origin": "JFK"}], at=T0 + HOUR + timedelta(microseconds=1))
    assert (inside.values["temp"], list(inside.statuses["temp"])) == ([20.5], [Status.PRESENT])
    assert (outside.values["temp"], list(outside.statuses["temp"])) == ([None], [Status.OUTSIDE_MAX_AGE])
    assert list(outside.event_times["temp"]) == [to_micros(T0)]


def test_the_instant_is_the_clock_s_where_none_is_given(make):
    store = make(catalog(view("weather", feature("temp"), ttl=HOUR)))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5}))
    assert store.read("all", [{"origin": "JFK"}]).at == to_micros(T0)
    store.clock.set(T0 + 2 * HOUR)
    assert list(store.read("all", [{"origin": "JFK"}]).statuses["temp"]) == [Status.OUTSIDE_MAX_AGE]


@pytest.mark.parametrize(
    ("policy", "value", "status"),
    [(StalePolicy.SERVE, 20.5, Status.PRESENT), (StalePolicy.NULL, None, Status.OUTSIDE_MAX_AGE)],
)
def test_a_value_past_its_freshness_objective_says_so(make, policy: StalePolicy, value: float | None, status: Status):
    store = make(catalog(view("weather", feature("temp"), freshness=Freshness(max_age=HOUR, policy=policy))))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5}))
    fresh = store.read("all", [{"origin": "JFK"}], at=T0 + HOUR)
    stale = store.read("all", [{"origin": "JFK"}, {"origin": "???"}], at=T0 + 2 * HOUR)
    assert list(fresh.stale["temp"]) == [False]
    assert list(stale.stale["temp"]) == [True, False]
    assert stale.values["temp"][0] == value
    assert stale.statuses["temp"][0] == status


def test_a_view_may_refuse_stale_values(make):
    freshness = Freshness(max_age=HOUR, policy=StalePolicy.REFUSE)
    store = make(catalog(view("weather", feature("temp"), freshness=freshness)))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5}))
    with pytest.raises(StaleFeaturesError, match="7,200 s old"):
        store.read("all", [{"origin": "JFK"}], at=T0 + 2 * HOUR)


def test_int64_beside_nulls_is_exact(make):
    exact = 9_007_199_254_740_993
    store = make(catalog(view("ids", feature("n", ValueType.INT64))))
    store.write("ids", rows({"origin": "JFK", "n": exact}, {"origin": "LGA", "n": None}))
    found = store.read("all", [{"origin": "JFK"}, {"origin": "LGA"}])
    assert found.values["n"] == [exact, None]
    assert found.frame().schema == {"n": pl.Int64()}
    assert found.frame()["n"].to_list() == [exact, None]


def test_every_type_comes_back_as_it_was(make):
    values = {
        "bytes": (ValueType.BYTES, b"\x00\xff"),
        "text": (ValueType.STRING, "ü" * 200),
        "empty": (ValueType.STRING, ""),
        "i32": (ValueType.INT32, -5),
        "i64": (ValueType.INT64, -(2**63)),
        "f64": (ValueType.DOUBLE, -0.0),
        "f32": (ValueType.FLOAT, 0.5),
        "yes": (ValueType.BOOL, True),
        "no": (ValueType.BOOL, False),
        "when": (ValueType.UNIX_TIMESTAMP, T0),
        "list": (ValueType.INT64_LIST, [1, -2]),
        "texts": (ValueType.STRING_LIST, ["a", ""]),
        "set": (ValueType.INT64_SET, {1, 2}),
        "map": (ValueType.MAP, {"a": 1}),
    }
    store = make(catalog(view("all_types", *(feature(name, dtype) for name, (dtype, _) in values.items()))))
    row = {"origin": "JFK"} | {
        name: list(value) if isinstance(value, set) else value for name, (_, value) in values.items()
    }
    frame = rows(row).with_columns(
        pl.col("i32").cast(pl.Int32), pl.col("f32").cast(pl.Float32), pl.col("when").cast(pl.Datetime("us", "UTC"))
    )
    nulls = frame.with_columns(pl.lit("LGA").alias("origin"), *(pl.lit(None).alias(name) for name in values))
    store.write("all_types", frame)
    store.write("all_types", nulls)
    for many in (1, 40):
        found = store.read("all", [{"origin": "JFK"}] * many)
        assert {name: column[-1] for name, column in found.values.items()} == {n: v for n, (_, v) in values.items()}
    found = store.read("all", [{"origin": "LGA"}])
    assert [found.values[name][0] for name in values] == [None] * len(values)
    assert found.frame().height == 1


def test_a_row_with_a_null_key_matches_nothing(make):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    found = store.read("all", [{"origin": None}, {"origin": "JFK"}, {"origin": None}])
    assert found.values["temp"] == [None, 20.5, None]
    assert found.statuses["temp"][0] == Status.NOT_FOUND
    assert store.read("all", [{"origin": None}]).values["temp"] == [None]


def test_no_rows_give_empty_columns(make):
    assert make(catalog(WEATHER)).read("all", []).to_dict() == {"temp": [], "wind": []}


def test_views_with_several_keys_and_one_key_are_read_together(make):
    route = view("route", feature("distance"), entities=("plane", "origin"))
    store = make(catalog(WEATHER, route))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    store.write("route", rows({"tail": 5, "origin": "JFK", "distance": 900.0}))
    found = store.read("all", [{"origin": "JFK", "tail": 5}, {"origin": "JFK", "tail": 6}])
    assert found.to_dict() == {"temp": [20.5, 20.5], "wind": [7, 7], "distance": [900.0, None]}


def test_a_projection_reads_other_columns_under_another_name(make):
    projections = (
        Projection(view="weather", features=("temp",), alias="here"),
        Projection(view="weather", features=("temp",), alias="there", join_key_map=(("origin", "dest"),)),
    )
    store = make(catalog(WEATHER, services=(Service(name="both", projections=projections),)))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}, {"origin": "LAX", "temp": 30.5, "wind": 7}))
    found = store.read("both", [{"origin": "JFK", "dest": "LAX"}], full_feature_names=True)
    assert found.to_dict() == {"here__temp": [20.5], "there__temp": [30.5]}
    with pytest.raises(DefinitionError, match="Two columns would be named 'temp'"):
        store.read("both", [{"origin": "JFK", "dest": "LAX"}])


def test_a_view_without_entities_is_written_and_read(make):
    store = make(catalog(view("world", feature("rate"), entities=())))
    store.write("world", rows({"rate": 1.5}))
    assert store.read("all", [{}, {}]).to_dict() == {"rate": [1.5, 1.5]}


def test_on_demand_features_read_features_the_service_does_not_have(make, tmp_path: Path):
    (tmp_path / "functions.py").write_text(
        "def total(inputs):\n"
        "    pairs = zip(inputs['wind'], inputs['extra'])\n"
        "    return {'total': [None if a is None else a + b for a, b in pairs]}\n"
    )
    total = OnDemandView(
        name="total",
        features=(feature("total", ValueType.INT64),),
        function=CodeReference(module="functions", qualname="total", digest=_digest(tmp_path / "functions.py")),
        mode="python",
        inputs=(OnDemandInput(view="weather", feature="wind"),),
        request=(RequestField(name="extra", dtype=ValueType.INT64),),
    )
    service = Service(name="s", projections=(Projection(view="total", features=("total",)),))
    store = make(catalog(WEATHER, on_demand=(total,), services=(service,)))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    found = store.read("s", [{"origin": "JFK", "extra": 1}, {"origin": "???", "extra": 1}])
    assert found.to_dict() == {"total": [8, None]}
    assert list(found.statuses["total"]) == [Status.PRESENT, Status.NULL_VALUE]
    assert store.plan("s").keys == ("origin",)
    assert list(store.plan("s").request_fields) == ["extra"]
    with pytest.raises(InputError, match="lacks the request field of 'total' 'extra'"):
        store.read("s", [{"origin": "JFK"}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "Row 0 lacks the key 'tail'"),
        ({"tail": "five"}, "'tail' is INT64, but 'five'"),
        ({"tail": 2**63}, "does not fit INT64"),
        ({"tail": True}, "is INT64, but True"),
        ({"tail": 0.5}, "is INT64, but 0.5"),
        ({"tail": float("nan")}, "is INT64, but nan"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_name(make, row: dict[str, Any], message: str):
    store = make(catalog(view("planes", feature("age"), entities=("plane",))))
    with pytest.raises(InputError, match=message):
        store.read("all", [row])


@pytest.mark.parametrize("key", [5, b"x", "\ud800"])
def test_a_text_key_that_is_no_text_is_refused(make, key: Any):
    with pytest.raises(InputError, match="'origin'"):
        make(catalog(WEATHER)).read("all", [{"origin": key}])


def test_unknown_names_are_told_with_a_suggestion(make):
    store = make(catalog(WEATHER))
    with pytest.raises(NotDefinedError, match="feature service is named 'al'"):
        store.read("al", [])
    with pytest.raises(NotDefinedError, match="Did you mean 'temp'"):
        store.read_features(["weather:tmp"], [])
    with pytest.raises(InputError, match="view:feature"):
        store.read_features(["weather"], [])


def test_a_frame_without_the_view_s_columns_is_refused_before_anything_is_written(make):
    store = make(catalog(WEATHER))
    with pytest.raises(InputError, match="lack 'wind'"):
        store.write("weather", rows({"origin": "JFK", "temp": 20.5}))
    with pytest.raises(InputError, match="'wind' are not INT64"):
        store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": "x"}))
    assert list(store.read("all", [{"origin": "JFK"}]).statuses["temp"]) == [Status.NOT_FOUND]


def test_rows_with_null_keys_are_counted_and_the_others_written(make):
    store = make(catalog(WEATHER))
    frame = rows({"origin": "JFK", "temp": 20.5, "wind": 7}, {"origin": None, "temp": 1.0, "wind": 1})
    assert (store.write("weather", frame).written, store.write("weather", frame).null_keys) == (1, 1)


def test_bytes_that_are_no_value_read_as_null_and_are_counted(make, address: str):
    store = make(catalog(WEATHER), online_layout="feast")
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    key = key_layout(store.catalog, WEATHER).encode(["JFK"])
    with redis.Redis.from_url(address) as client:
        client.hset(key, hash_field("weather", "temp"), b"\x12\x03abc")  # a string where a double should be
        client.hset(key, hash_field("weather", "wind"), b"\xff\xff")
    for many in (1, 40):
        found = store.read("all", [{"origin": "JFK"}] * many)
        assert found.values == {"temp": [None] * many, "wind": [None] * many}
        assert list(found.statuses["temp"]) == [Status.NULL_VALUE] * many
    assert store.wrong.count["weather:temp"] == 41
    with redis.Redis.from_url(address) as client:
        client.hset(key, "_ts:weather", b"garbage")
    assert list(store.read("all", [{"origin": "JFK"}]).statuses["temp"]) == [Status.NOT_FOUND]
    store.write("weather", rows({"origin": "JFK", "temp": 21.5, "wind": 7}))
    assert store.read("all", [{"origin": "JFK"}]).values["temp"] == [21.5]


def test_a_packed_value_of_an_older_definition_reads_as_not_found(make):
    store = make(catalog(WEATHER), online_layout="packed")
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    changed = make(catalog(view("weather", feature("temp", ValueType.INT64), feature("wind"))), online_layout="packed")
    for many in (1, 40):
        found = changed.read("all", [{"origin": "JFK"}] * many)
        assert list(found.statuses["temp"]) == [Status.NOT_FOUND] * many
    assert changed.wrong.count["weather:packed value"] == 41


def test_a_view_s_deletion_leaves_every_other_view_alone(make, address: str):
    store = make(catalog(WEATHER, view("delays", feature("late")), view("planes", feature("age"), entities=("plane",))))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}, {"origin": "[*]?", "temp": 0.0, "wind": 1}))
    store.write("delays", rows({"origin": "JFK", "late": 1.0}))
    store.write("planes", rows({"tail": 0x5D2A3F, "age": 3.0}))
    assert store.delete_view("weather") == 2
    found = store.read("all", [{"origin": "JFK", "tail": 0x5D2A3F}, {"origin": "[*]?", "tail": 1}])
    assert found.to_dict() == {"temp": [None] * 2, "wind": [None] * 2, "late": [1.0, None], "age": [3.0, None]}
    with redis.Redis.from_url(address) as client:
        assert client.dbsize() == 2


def test_a_project_s_deletion_leaves_another_whose_name_ends_alike(make, address: str):
    mine = make(catalog(WEATHER))
    other = make(Catalog(**{**vars(catalog(WEATHER)), "project": "my_prod"}))
    frame = rows({"origin": "JFK", "temp": 20.5, "wind": 7}, {"origin": "my_", "temp": 1.0, "wind": 7})
    mine.write("weather", frame)
    other.write("weather", frame)
    with redis.Redis.from_url(address) as client:
        client.set("somebody's prod", 1)
    assert mine.delete_project() == 2
    assert other.read("all", [{"origin": "JFK"}]).values["temp"] == [20.5]
    assert list(mine.read("all", [{"origin": "JFK"}]).statuses["temp"]) == [Status.NOT_FOUND]
    with redis.Redis.from_url(address) as client:
        assert client.dbsize() == 3


def test_keys_expire_by_the_longest_ttl_on_them_and_writing_renews(make, address: str):
    views = (view("short", feature("a"), ttl=HOUR), view("long", feature("b"), ttl=100 * HOUR))
    store = make(catalog(*views))
    key = key_layout(store.catalog, views[0]).encode(["JFK"])
    store.write("short", rows({"origin": "JFK", "a": 1.0}))
    with redis.Redis.from_url(address) as client:
        assert client.ttl(key) >= 100 * 3600
        client.expire(key, 10)
        store.write("short", rows({"origin": "JFK", "a": 1.0}))  # unchanged
        assert client.ttl(key) >= 100 * 3600


def test_a_key_on_which_one_view_has_no_ttl_lives_for_ever(make, address: str):
    views = (view("short", feature("a"), ttl=HOUR), view("ever", feature("b")))
    store = make(catalog(*views))
    key = key_layout(store.catalog, views[0]).encode(["JFK"])
    store.write("short", rows({"origin": "JFK", "a": 1.0}))
    with redis.Redis.from_url(address) as client:
        assert client.ttl(key) == -1


def test_asyncio_reads_the_same(make):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))

    async def run() -> list[dict]:
        found = await asyncio.gather(*(store.aread("all", [{"origin": "JFK"}]) for _ in range(20)))
        other = await store.aread_features(["weather:wind"], [{"origin": "JFK"}])
        await store.aclose()
        return [item.to_dict() for item in found] + [other.to_dict()]

    assert asyncio.run(run()) == [{"temp": [20.5], "wind": [7]}] * 20 + [{"wind": [7]}]


def test_redis_gone_is_an_error_of_its_own_and_reads_resume_by_themselves(own_server, tmp_path: Path):
    found = catalog(WEATHER)
    address = own_server.ensure_started()
    store = OnlineStore(
        address=address, project="prod", catalog=found, settings=Settings(), root=tmp_path, clock=ManualClock(T0)
    )
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    own_server.stop()
    with pytest.raises(OnlineStoreUnavailableError):
        store.read("all", [{"origin": "JFK"}])
    with pytest.raises(OnlineStoreUnavailableError):
        store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    own_server.ensure_started()
    assert store.read("all", [{"origin": "JFK"}]).values["temp"] == [20.5]
    store.close()


def test_two_features_with_the_same_field_hash_are_refused_at_apply():
    first, second = _colliding()
    with pytest.raises(DefinitionError, match="same 32-bit field hash"):
        check_field_hashes(catalog(view("v", feature(first), feature(second))))
    check_field_hashes(catalog(WEATHER))


def _colliding() -> tuple[str, str]:
    seen: dict[bytes, str] = {}
    for number in range(1_000_000):
        name = f"f{number}"
        other = seen.setdefault(hash_field("v", name), name)
        if other != name:
            return other, name
    raise AssertionError("no collision among a million names")
