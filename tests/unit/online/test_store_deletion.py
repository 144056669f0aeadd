"""Deleting a view or a project takes its keys and nobody else's."""

from __future__ import annotations

import redis
from store_parts import WEATHER, catalog, feature, rows, view

from tidemill.definitions import (
    Catalog,
)
from tidemill.online.store import Status


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
