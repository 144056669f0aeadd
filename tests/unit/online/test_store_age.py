"""How old a value may be: ttl, freshness objectives and the expiry of keys."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis
from store_parts import HOUR, T0, catalog, feature, rows, view

from tidemill.clock import to_micros
from tidemill.definitions import (
    Freshness,
    StalePolicy,
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
