"""How old a value may be: ttl, freshness objectives and the expiry of keys."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
import redis
from store_parts import HOUR, T0, catalog, feature, rows, view

from tidemill.clock import to_micros
from tidemill.definitions import (
    Freshness,
    StalePolicy,
    ValueType,
)
from tidemill.errors import (
    StaleFeaturesError,
)
from tidemill.online.keys import key_layout
from tidemill.online.store import Status


def test_exactly_ttl_old_still_counts_and_a_microsecond_more_does_not(make):
    store = make(catalog(view("weather", feature("temp"), ttl=HOUR)))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5}))
    inside = store.read("all", [{"origin": "JFK"}], at=T0 + HOUR)
    outside = store.read("all", [{"origin": "JFK"}], at=T0 + HOUR + timedelta(microseconds=1))
    assert (inside.values["temp"], list(inside.statuses["temp"])) == ([20.5], [Status.PRESENT])
    assert (outside.values["temp"], list(outside.statuses["temp"])) == ([None], [Status.OUTSIDE_MAX_AGE])
    assert list(outside.event_times["temp"]) == [to_micros(T0)]


def test_each_view_of_a_row_is_as_old_as_its_own_ttl_allows(make):
    short = view("short", feature("temp"), feature("name", ValueType.STRING), ttl=HOUR)
    long = view("long", feature("wind", ValueType.INT64), ttl=3 * HOUR)
    store = make(catalog(short, long, view("ever", feature("height", ValueType.FLOAT))))
    store.write("short", rows({"origin": "JFK", "temp": 20.5, "name": "Kennedy"}))
    store.write("long", rows({"origin": "JFK", "wind": 7}))
    store.write("ever", rows({"origin": "JFK", "height": 0.5}, height=pl.Float32, event=T0 - 100 * HOUR))
    old, here = [Status.OUTSIDE_MAX_AGE], [Status.PRESENT]
    for _ in range(2):  # the second time over a connection that has been used
        for hours, values, statuses in (
            (0, [[20.5], ["Kennedy"], [7], [0.5]], [here, here, here, here]),
            (1, [[20.5], ["Kennedy"], [7], [0.5]], [here, here, here, here]),
            (2, [[None], [None], [7], [0.5]], [old, old, here, here]),
            (4, [[None], [None], [None], [0.5]], [old, old, old, here]),
        ):
            found = store.read("all", [{"origin": "JFK"}], at=T0 + hours * HOUR)
            assert list(found.values.values()) == values
            assert list(found.statuses.values()) == statuses
            assert list(found.event_times["wind"]) == [to_micros(T0)]
            assert found.all_present is (hours < 2)


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
