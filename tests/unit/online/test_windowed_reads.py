"""Windowed and plain views in one service: one read, and deletion that takes tiles along."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from online_stores import open_store

from tidemill.definitions import (
    Aggregation,
    AggregationFunction,
    Catalog,
    Entity,
    Feature,
    Freshness,
    Projection,
    Schedule,
    Service,
    Source,
    StalePolicy,
    Stream,
    ValueType,
    View,
)
from tidemill.errors import InputError
from tidemill.online.store import OnlineStore, Status

T0 = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
TIMES = pl.Datetime("us", "UTC")


def delays(name: str = "delays", **more) -> View:
    functions = {"n": AggregationFunction.COUNT, "mean": AggregationFunction.MEAN}
    types = {"n": ValueType.INT64, "mean": ValueType.DOUBLE}
    return View(
        name=name,
        entities=("origin",),
        join_keys=("origin",),
        features=tuple(Feature(name=f"{name}_{part}", dtype=types[part]) for part in functions),
        source="events",
        stream="departed",
        aggregations=tuple(
            Aggregation(name=f"{name}_{part}", function=function, column="delay", window=HOUR, hop=5 * MINUTE)
            for part, function in functions.items()
        ),
        **more,
    )


def catalog(**more) -> Catalog:
    weather = View(
        name="weather",
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="temp", dtype=ValueType.DOUBLE),),
        source="events",
    )
    hourly = delays("hourly", schedule=Schedule(cron="0 * * * *"))
    views = (delays(**more), weather, hourly)
    return Catalog(
        project="prod",
        entities=(Entity(name="origin", join_key="origin", dtype=ValueType.STRING),),
        sources=(Source(name="events", path="events", timestamp_field="at"),),
        streams=(Stream(name="departed", kind="push", source="events"),),
        views=views,
        services=(
            Service(
                name="all",
                projections=tuple(Projection(view=v.name, features=tuple(f.name for f in v.features)) for v in views),
            ),
            Service(
                name="there",
                projections=(Projection(view="delays", features=("delays_mean",), join_key_map=(("origin", "dest"),)),),
            ),
        ),
    )


@pytest.fixture
def store(address: str, tmp_path: Path):
    store = open_store(catalog(), address, at=T0, root=tmp_path)
    yield store
    store.close()


def push(store: OnlineStore, *events: tuple[str, timedelta, int]) -> None:
    schema = {"origin": pl.String, "at": TIMES, "delay": pl.Int64}
    rows = [(origin, T0 + at, delay) for origin, at, delay in events]
    store.push("departed", pl.DataFrame(rows, schema=schema, orient="row"), at=T0)


def write(store: OnlineStore, view: str, **columns) -> None:
    times = pl.lit(T0).cast(TIMES)
    store.write(view, pl.DataFrame(columns).with_columns(times.alias("__event_time"), times.alias("__known_time")))


def test_windows_and_plain_values_are_read_together(store: OnlineStore):
    push(store, ("JFK", -10 * MINUTE, 4), ("JFK", -MINUTE, 8), ("LGA", -2 * HOUR, 1))
    write(store, "weather", origin=["JFK"], temp=[20.5])
    found = store.read("all", [{"origin": "JFK"}, {"origin": "LGA"}, {"origin": None}, {"origin": "EWR"}])
    assert found.values["delays_n"] == [2, 0, 0, 0]
    assert found.values["delays_mean"] == [6.0, None, None, None]
    assert found.values["temp"] == [20.5, None, None, None]
    assert list(found.statuses["delays_mean"]) == [Status.PRESENT] + [Status.NOT_FOUND] * 3
    emptied = store.read("all", [{"origin": "JFK"}], at=T0 + 2 * HOUR)
    assert (emptied.values["delays_n"], list(emptied.statuses["delays_mean"])) == ([0], [Status.NULL_VALUE])
    assert found.names == ("delays_n", "delays_mean", "temp", "hourly_n", "hourly_mean")


@pytest.mark.parametrize("later", [timedelta(0), 4 * timedelta(seconds=1), 55 * MINUTE, 3 * HOUR])
def test_one_row_of_windows_is_answered_as_many_are(store: OnlineStore, address: str, later: timedelta):
    push(store, ("JFK", -10 * MINUTE, 4), ("JFK", timedelta(seconds=3), 8), ("LGA", timedelta(seconds=2), 1))
    push(store, ("BOS", -MINUTE, 7), ("BOS", -50 * MINUTE, 9))
    push(store, ("SFO", -MINUTE, 5))
    (broken,) = (key for key in store.resp.call("KEYS", "tm:{prod}:w:delays:*") if b"SFO" in key)
    store.resp.call("SET", broken, "no tiles")
    refs = ["delays:delays_mean", "delays:delays_n"]
    rows = [{"origin": origin} for origin in ("JFK", "LGA", "BOS", "EWR", "SFO", None)]
    many = store.read_features(refs, rows, at=T0 + later)
    for place, row in enumerate(rows):
        one = store.read_features(refs, [row], at=T0 + later)
        for name in ("delays_mean", "delays_n"):
            assert one.values[name] == many.values[name][place : place + 1]
            assert list(one.statuses[name]) == list(many.statuses[name])[place : place + 1]
            assert list(one.event_times[name]) == list(many.event_times[name])[place : place + 1]


def test_rows_about_the_same_entity_ask_for_its_windows_once(store: OnlineStore, address: str):
    push(store, ("JFK", -10 * MINUTE, 4), ("JFK", -MINUTE, 8), ("LGA", -MINUTE, 1))
    write(store, "weather", origin=["JFK"], temp=[20.5])
    origins = ["LGA", "JFK", None, "JFK", "EWR", "LGA", None, "EWR"]
    store.resp.call("CONFIG", "RESETSTAT")
    many = store.read("all", [{"origin": origin} for origin in origins])
    commands = store.resp.call("INFO", "commandstats").decode()
    assert commands.partition("cmdstat_get:calls=")[2].partition(",")[0] == "3"
    for place, origin in enumerate(origins):
        one = store.read("all", [{"origin": origin}])
        for name in many.names:
            assert many.values[name][place] == one.values[name][0]
            assert list(many.statuses[name])[place] == next(iter(one.statuses[name]))
            assert list(many.event_times[name])[place] == next(iter(one.event_times[name]))


def test_a_window_slides_on_though_no_event_arrives(store: OnlineStore):
    push(store, ("JFK", -10 * MINUTE, 4), ("JFK", -MINUTE, 8))
    later = store.read("all", [{"origin": "JFK"}], at=T0 + 56 * MINUTE)
    assert (later.values["delays_n"], later.values["delays_mean"]) == ([1], [8.0])


def test_a_scheduled_windowed_view_is_kept_as_plain_values_and_counts_nothing_as_zero(store: OnlineStore):
    write(store, "hourly", origin=["JFK"], hourly_n=[3], hourly_mean=[1.5])
    found = store.read("all", [{"origin": "JFK"}, {"origin": "EWR"}])
    assert found.values["hourly_n"] == [3, 0]
    assert found.values["hourly_mean"] == [1.5, None]
    assert list(found.statuses["hourly_n"]) == [Status.PRESENT, Status.NOT_FOUND]


def test_windows_follow_a_projection_s_other_columns(store: OnlineStore):
    push(store, ("LAX", -MINUTE, 8))
    assert store.read("there", [{"origin": "JFK", "dest": "LAX"}]).values["delays_mean"] == [8.0]
    with pytest.raises(InputError, match="lacks the key 'dest'"):
        store.read("there", [{"origin": "JFK"}])


def test_a_windowed_view_s_freshness_is_that_of_its_newest_event(address: str, tmp_path: Path):
    freshness = Freshness(max_age=10 * MINUTE, policy=StalePolicy.NULL)
    store = open_store(catalog(freshness=freshness), address, at=T0, root=tmp_path)
    push(store, ("JFK", -20 * MINUTE, 4))
    found = store.read("all", [{"origin": "JFK"}])
    assert found.stale["delays_mean"] == [True]
    assert (found.values["delays_mean"], list(found.statuses["delays_mean"])) == ([None], [Status.OUTSIDE_MAX_AGE])
    store.close()


def test_deletion_takes_a_view_s_tiles_along_and_no_other_s(store: OnlineStore, address: str, tmp_path: Path):
    other = open_store(replace(catalog(), project="my_prod"), address, at=T0, root=tmp_path)
    for one in (store, other):
        push(one, ("JFK", -MINUTE, 8))
        write(one, "weather", origin=["JFK"], temp=[20.5])
    assert store.delete_view("delays") > 0
    found = store.read("all", [{"origin": "JFK"}])
    assert (found.values["delays_n"], found.values["temp"]) == ([0], [20.5])
    store.delete_project()
    assert other.read("all", [{"origin": "JFK"}]).values["delays_n"] == [1]
    with redis.Redis.from_url(address) as client:
        assert all(b"my_prod" in key for key in client.scan_iter())
    other.close()
