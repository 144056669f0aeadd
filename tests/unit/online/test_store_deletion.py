"""Deleting a view or a project takes its keys and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from store_parts import WEATHER, catalog, feature, rows, view

from tidemill.definitions import (
    Catalog,
)
from tidemill.online.deletion import delete_view
from tidemill.online.resp import RespClient
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


class Meanwhile:
    """A client after one of whose calls, told by its number, somebody else does something."""

    def __init__(self, client: RespClient, something: Callable[[], Any], after: int) -> None:
        self._client, self._something, self._after = client, something, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def then_something(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            self._after -= 1
            if not self._after:
                self._something()
            return answer

        return then_something


@pytest.mark.parametrize("after", range(1, 7))
def test_what_another_view_writes_while_a_view_is_deleted_stays(make, address: str, after: int):
    store = make(catalog(WEATHER, view("delays", feature("late"))))
    keys = [{"origin": f"A{number}"} for number in range(150)]
    store.write("weather", rows(*(key | {"temp": 1.0, "wind": 7} for key in keys)))
    store.resp.pipeline([("HSET", key, "of a feature that was renamed", "1") for key in store.resp.call("KEYS", "*")])
    delays = rows(*(key | {"late": 2.0} for key in keys))
    client: Any = Meanwhile(store.resp, lambda: store.write("delays", delays), after)
    assert delete_view(client, store.catalog, store.catalog.view("weather")) == 150
    store.write("delays", delays.head(0 if client._after <= 0 else 150))
    found = store.read("all", keys)
    assert found.values["late"] == [2.0] * 150
    assert found.values["temp"] == [None] * 150


def test_fields_that_nobody_reads_any_more_go_with_the_last_view(make, address: str):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}, {"origin": "LGA", "temp": 1.0, "wind": 1}))
    with redis.Redis.from_url(address) as client:
        (first, *_) = client.keys()
        client.hset(first, b"of a feature that was renamed", b"1")
        assert store.delete_view("weather") == 2
        assert client.dbsize() == 0


def test_a_view_of_very_many_features_is_deleted_whole(make, address: str):
    wide = view("wide", *(feature(f"f{number}") for number in range(2_500)))
    store = make(catalog(wide, view("delays", feature("late"))))
    store.write("wide", rows({"origin": "JFK"} | {f"f{number}": 1.0 for number in range(2_500)}))
    store.write("delays", rows({"origin": "JFK", "late": 1.0}))
    assert store.delete_view("wide") == 1
    with redis.Redis.from_url(address) as client:
        assert all(client.hlen(key) <= 3 for key in client.scan_iter())
    assert store.read_features(["delays:late"], [{"origin": "JFK"}]).values["late"] == [1.0]


def test_tiles_of_a_view_that_was_one_of_windows_go_with_it(make, address: str):
    store = make(catalog(WEATHER))
    store.resp.call("SET", "tm:{prod}:w:weather:0123456789:JFK", "tiles")
    store.resp.call("SET", "tm:{prod}:w:weathers:0123456789:JFK", "another view's")
    store.resp.call("SET", "tm:{my_prod}:w:weather:0123456789:JFK", "another project's")
    assert store.delete_view("weather") == 1
    assert len(store.resp.call("KEYS", "*")) == 2
