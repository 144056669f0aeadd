"""Feast's remote client over HTTP: what Feast wrote into Redis comes back from our server as Feast would read it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from feast import RepoConfig
from feast.infra.online_stores.remote import RemoteOnlineStore, RemoteOnlineStoreConfig
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType as FeastType

sys.path.insert(0, str(Path(__file__).parent))  # what several files share is imported by name

from both_stores import NESTED, T0, VALUES, Both
from own_redis import redis_in
from small_project import served

from tidemill.clock import ManualClock
from tidemill.definitions.catalog import Source
from tidemill.project import Project
from tidemill.settings import Settings

ALL = {name.lower(): value for name, value in (VALUES | NESTED).items()}
BYTES = [name for name in ALL if name.startswith("bytes")]
REFERENCES = [f"everything:{name}" for name in ALL]
ENTITIES = {"zone": ["a", "b", "c"]}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """`a` has a value of every type, `b` nulls, `c` nothing."""
    root = tmp_path_factory.mktemp("types")
    with redis_in(root / "redis", maxmemory="64mb") as server:
        both = Both(server, root, [*ALL], keys=1)
        both.feast_writes("a", 1, ALL, T0)
        both.feast_writes("b", 1, dict.fromkeys(ALL), T0)
        yield both
        both.ours.close()
        both.redis.close()


@pytest.fixture(scope="module")
def api(both: Both, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("project")
    (root / "feature_store.yaml").write_text("project: prod\n")
    settings = Settings(redis_url=both.ours.address)  # pyright: ignore[reportArgumentType]
    project = Project(root, settings=settings, name="prod", clock=ManualClock(T0))
    [view] = both.catalog.views
    namesake = replace(view, name="namesake", features=(view.feature("int64"),))
    source = Source(name="s", path="s", timestamp_field="at")
    project.catalogs.add(replace(both.catalog, sources=(source,), views=(view, namesake)), at=T0)
    with served(project) as client:
        yield client
    project.close()


def remote_read(both: Both, api: httpx.Client, zone: str, names: list[str]) -> dict[str, Value]:
    ((_, found),) = RemoteOnlineStore().online_read(remote(both, api), both.table, [both.key(zone, 1)], names)
    assert found is not None
    return found


def remote(both: Both, api: httpx.Client) -> RepoConfig:
    store = RemoteOnlineStoreConfig(path=str(api.base_url).rstrip("/"))
    return RepoConfig(project="prod", provider="local", registry=both.config.registry, online_store=store)


def protos(values: dict[str, Any]) -> dict[str, Value]:
    return {name: python_values_to_proto_values([value], FeastType[name.upper()])[0] for name, value in values.items()}


def test_feast_s_remote_client_reads_every_type_that_it_can_take(both: Both, api: httpx.Client) -> None:
    """Feast's client takes no bytes from any server: JSON has none, and it expects no encoding of them."""
    names = [name for name in ALL if name not in BYTES]
    ((_, direct),) = both.feast.online_read(both.config, both.table, [both.key("a", 1)], [*names])
    assert direct is not None
    found = remote_read(both, api, "a", names)
    assert {name: _plain(value) for name, value in found.items()} == {
        name: _plain(value) for name, value in direct.items()
    }
    for zone in ("b", "c"):
        assert [value.WhichOneof("val") for value in remote_read(both, api, zone, names).values()] == [None] * len(
            names
        )


def test_what_feast_s_remote_client_writes_is_what_feast_would_have_written(both: Both, api: httpx.Client) -> None:
    """It can send neither bytes nor decimals nor sets (but of instants), to any server: JSON has none of them."""
    kept = [name for name in ALL if name not in BYTES and name != "decimal"]
    kept = [name for name in kept if not name.endswith("_set") or name == "unix_timestamp_set"]
    rows = {
        "ü:{1}": {name: ALL[name] for name in kept},
        "other": dict.fromkeys(kept)
        | {"map": {"z": [0.5], "a": None}, "struct": {"b": {"c": True}}, "map_list": [{"q": "x"}, {"r": 1}]},
        "nulls": dict.fromkeys(kept),
    }
    sent = [(both.key(zone, 1), protos(dict.fromkeys(ALL) | values), T0, None) for zone, values in rows.items()]
    RemoteOnlineStore().online_write_batch(remote(both, api), both.table, sent, None)
    found = both.feast.online_read(both.config, both.table, [key for key, *_ in sent], [*ALL])
    for (_, expected, _, _), (at, values) in zip(sent, found, strict=True):
        assert at == T0
        assert values is not None
        assert {name: _plain(value) for name, value in values.items()} == {
            name: _plain(value) for name, value in expected.items()
        }


ODD = [
    5, 2.5, "x", "{", '{"a": 1}', "[1]", [], [1], ["a"], [None], [[1]], [{"a": 1}], ['{"a": 1}'], {}, {"a": None},
    {"a": [1, "x"]}, {"a": [{"b": 1}, 2]}, {"a": [[1]]}, {"a": 2**70}, True, 1e300, -1, 2**63, "NaN", "\ud800", 1e400,
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_value_of_another_type_is_refused_or_kept_and_no_server_s_fault(api: httpx.Client, name: str) -> None:
    at = {"event_timestamp": [T0.isoformat()] * 2, "created": [None] * 2}
    for value in ODD:
        body = at | {"zone": ["odd", "even"]} | {other: [None] * 2 for other in ALL} | {name: [value, None]}
        sent = json.dumps({"feature_view_name": "everything", "df": body})
        written = api.post("/write-to-online-store", content=sent)
        assert written.status_code in (200, 400, 422), (value, written.text)
        read = api.post(
            "/get-online-features", json={"features": [f"everything:{name}"], "entities": {"zone": ["odd"]}}
        )
        assert read.status_code == 200, (value, read.text)
        if written.status_code == 200:
            assert read.json()["results"][1]["statuses"] == ["PRESENT"], value


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_cannot_say_break_no_feast_client(both: Both, api: httpx.Client, value: float) -> None:
    both.feast_writes(f"z{value}", 1, ALL | {"double": value, "double_list": [value, 1.0]}, T0)
    found = remote_read(both, api, f"z{value}", ["double"])["double"]
    if value != value:
        assert found.WhichOneof("val") is None
    else:
        assert found.double_val == value
    document = api.post("/get-online-features", json={"features": REFERENCES, "entities": {"zone": [f"z{value}"]}})
    assert document.status_code == 200
    assert document.json()["results"][1 + [*ALL].index("double_list")]["values"][0][1] == 1.0


def test_every_type_has_one_status_each_and_names_as_asked_for(api: httpx.Client) -> None:
    for full in (False, True):
        body = {"features": REFERENCES, "entities": ENTITIES, "full_feature_names": full}
        answer = api.post("/get-online-features", json=body).json()
        names = answer["metadata"]["feature_names"]
        assert names == [*ENTITIES, *((f"everything__{name}" if full else name) for name in ALL)]
        for vector in answer["results"][1:]:
            assert vector["statuses"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]
            assert vector["values"][1:] == [None, None]
            assert vector["event_timestamps"][2] == "1970-01-01T00:00:00Z"
    by_service = api.post("/get-online-features", json={"feature_service": "all", "entities": ENTITIES}).json()
    body = {"features": REFERENCES, "entities": ENTITIES}
    assert by_service == api.post("/get-online-features", json=body).json()


def test_features_of_one_name_are_told_apart_by_their_full_names(api: httpx.Client) -> None:
    """Feast takes the same pair with full names and refuses it without them."""
    body = {"features": ["everything:int64", "namesake:int64"], "entities": {"zone": ["a"]}}
    full = api.post("/get-online-features", json=body | {"full_feature_names": True}).json()
    assert full["metadata"]["feature_names"] == ["zone", "everything__int64", "namesake__int64"]
    assert [vector["statuses"] for vector in full["results"][1:]] == [["PRESENT"], ["NOT_FOUND"]]
    rows = [{"zone": "a"}]
    for path, asked in (("/get-online-features", body), ("/v1/features", {"features": body["features"], "rows": rows})):
        refused = api.post(path, json=asked)
        assert refused.status_code == 422
        assert "would be named 'int64'" in refused.json()["detail"]


def test_every_type_comes_over_our_own_api(api: httpx.Client) -> None:
    rows = [{"zone": zone} for zone in "ab"]
    found = api.post("/v1/features/all", json={"rows": rows}).json()["features"]
    assert {name: column[1] for name, column in found.items()} == dict.fromkeys(ALL)
    assert found["bytes"][0] == "AP8="
    assert found["int64"][0] == 9_007_199_254_740_993
    assert found["unix_timestamp"][0] == "2013-01-01T00:00:00Z"
    assert found["map"][0] == ALL["map"]
    assert found["map_list"][0] == ALL["map_list"]
    assert sorted(found["int64_set"][0]) == [-(2**62), 1]
    assert found["decimal"][0] == "12.30"


def _plain(value: Value) -> object:
    """A set has no order."""
    kind = value.WhichOneof("val") or ""
    inner = getattr(value, kind, None)
    return kind, sorted(inner.val) if kind.endswith("_set_val") else inner  # type: ignore[union-attr]
