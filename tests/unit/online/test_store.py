"""Reading and writing plain views: values, order, statuses, types, and what a row of nothing gives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl
import pytest
from store_parts import T0, WEATHER, catalog, feature, rows, view

from tidemill.clock import to_micros
from tidemill.definitions import (
    CodeReference,
    OnDemandInput,
    OnDemandView,
    Projection,
    RequestField,
    Service,
    ValueType,
)
from tidemill.definitions.function_text import function_digest
from tidemill.errors import (
    DefinitionError,
    InputError,
)
from tidemill.online.store import Status


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
        function=CodeReference(
            module="functions", qualname="total", digest=function_digest(tmp_path / "functions.py", "total", tmp_path)
        ),
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
    with pytest.raises(InputError, match="lacks the request field of 'total' 'extra'"):
        store.read("s", [{"origin": "JFK"}])


def test_asyncio_reads_the_same(make):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))

    async def run() -> list[dict]:
        found = await asyncio.gather(*(store.aread("all", [{"origin": "JFK"}]) for _ in range(20)))
        other = await store.aread_features(["weather:wind"], [{"origin": "JFK"}])
        await store.aclose()
        return [item.to_dict() for item in found] + [other.to_dict()]

    assert asyncio.run(run()) == [{"temp": [20.5], "wind": [7]}] * 20 + [{"wind": [7]}]
