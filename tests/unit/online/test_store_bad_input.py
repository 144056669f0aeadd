"""Keys, names, frames and bytes that cannot be are told by name, and nothing is half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from online_stores import open_store
from store_parts import T0, WEATHER, catalog, feature, rows, view

from tidemill.definitions import (
    ValueType,
)
from tidemill.errors import (
    DefinitionError,
    InputError,
    NotDefinedError,
    OnlineStoreUnavailableError,
)
from tidemill.online.keys import check_field_hashes, hash_field, key_layout
from tidemill.online.store import Status


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


def test_redis_gone_is_an_error_of_its_own_and_reads_resume_by_themselves(own_server, tmp_path: Path):
    store = open_store(catalog(WEATHER), own_server.ensure_started(), at=T0, root=tmp_path)
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
