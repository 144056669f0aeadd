"""Feast's own Redis store and ours share one Redis: each reads the other's rows, and what is written is the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from feast import RepoConfig
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType as FeastType

sys.path.insert(0, str(Path(__file__).parent))  # what several files share is imported by name

from both_stores import NAMES, NESTED, T0, VALUES, Both
from own_redis import redis_in

from tidemill.clock import to_micros
from tidemill.feast.online import TidemillRedisOnlineStore, TidemillRedisOnlineStoreConfig
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.store import Status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("feast") / "redis", maxmemory="64mb") as server:
        yield server


@pytest.fixture
def both(server: EmbeddedRedis, tmp_path: Path) -> Iterator[Both]:
    both = Both(server, tmp_path, NAMES)
    yield both
    both.ours.close()
    both.redis.close()


ALL = dict(zip(NAMES, VALUES.values(), strict=True))
NONE = dict.fromkeys(NAMES)


@pytest.mark.parametrize("values", [ALL, NONE], ids=["values", "nulls"])
@pytest.mark.parametrize("at", [T0, T0.replace(microsecond=0), datetime(1970, 1, 1, tzinfo=UTC)])
def test_the_store_is_byte_identical(both: Both, values: dict, at: datetime):
    both.feast_writes("a", 1, values, at)
    theirs = both.stored()
    both.redis.flushall()
    both.we_write("a", 1, values, at)
    assert both.stored() == theirs


def test_we_read_what_feast_wrote(both: Both):
    both.feast_writes("a", 1, ALL, T0)
    both.feast_writes("a", 2, NONE, T0)
    found = both.ours.read("all", [{"zone": "a", "id": 1}, {"zone": "a", "id": 2}, {"zone": "a", "id": 3}])
    assert {name: values[0] for name, values in found.values.items()} == ALL
    assert {name: list(statuses) for name, statuses in found.statuses.items()} == {
        name: [Status.PRESENT, Status.NULL_VALUE, Status.NOT_FOUND] for name in NAMES
    }
    assert found.event_times["int64"][0] == to_micros(T0)


def test_feast_reads_what_we_wrote(both: Both):
    both.we_write("a", 1, ALL, T0)
    ((at, values),) = both.feast.online_read(both.config, both.table, [both.key("a", 1)], list(NAMES))
    assert at == T0
    assert values == {name: python_values_to_proto_values([ALL[name]], FeastType[name.upper()])[0] for name in NAMES}


def test_a_row_that_feast_made_newer_is_not_overwritten_by_an_older_one_of_ours(both: Both):
    both.we_write("a", 1, ALL | {"int32": 1}, T0)
    both.feast_writes("a", 1, ALL | {"int32": 2}, T0 + timedelta(hours=1))
    both.we_write("a", 1, ALL | {"int32": 3}, T0 + timedelta(minutes=30))
    assert both.ours.read("all", [{"zone": "a", "id": 1}]).values["int32"] == [2]
    both.we_write("a", 1, ALL | {"int32": 4}, T0 + timedelta(hours=1))
    assert both.ours.read("all", [{"zone": "a", "id": 1}]).values["int32"] == [4]


def test_feast_s_deletion_of_a_project_whose_name_ends_alike_is_what_ours_is_not(both: Both):
    """Feast scans for keys that end in the project's name, and so takes those of `my_prod` along."""
    both.we_write("a", 1, ALL, T0)
    key = next(iter(both.redis.keys()))
    other = key.removesuffix(b"prod") + b"my_prod"
    both.redis.hset(other, "_ts:everything", b"")
    both.ours.delete_project()
    assert both.redis.keys() == [other]
    both.feast.teardown(both.config, [both.table], [])
    assert both.redis.keys() == []


@pytest.fixture
def nested(server: EmbeddedRedis, tmp_path: Path) -> Iterator[Both]:
    both = Both(server, tmp_path, [name.lower() for name in NESTED])
    yield both
    both.ours.close()
    both.redis.close()


def test_sets_and_maps_that_feast_wrote_are_what_it_was_given(nested: Both):
    values = {name.lower(): value for name, value in NESTED.items()}
    nested.feast_writes("a", 1, values, T0)
    found = nested.ours.read("all", [{"zone": "a", "id": 1}])
    assert {name: column[0] for name, column in found.values.items()} == values


def test_sets_and_maps_that_we_wrote_are_what_feast_would_have_written(nested: Both):
    values = {name.lower(): value for name, value in NESTED.items()}
    given = {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}
    nested.we_write("a", 1, given, T0)
    ((_, found),) = nested.feast.online_read(nested.config, nested.table, [nested.key("a", 1)], list(values))
    expected = {
        name: python_values_to_proto_values([value], FeastType[name.upper()])[0] for name, value in values.items()
    }
    assert {name: _plain(value) for name, value in found.items()} == {
        name: _plain(value) for name, value in expected.items()
    }


def test_maps_unlike_each_other_are_written_whole_by_our_store_in_feast(nested: Both, tmp_path: Path):
    """Polars would give all maps of a column the fields of the first."""
    (tmp_path / "feature_store.yaml").write_text("project: prod\n")
    ours = TidemillRedisOnlineStoreConfig(connection_string=nested.ours.address)
    config = RepoConfig(
        project="prod", provider="local", registry=nested.config.registry, online_store=ours, repo_path=tmp_path
    )
    store, features = TidemillRedisOnlineStore(), [feature.name for feature in nested.catalog.views[0].features]
    maps = [{"a": 1, "s": {1, 2}}, {"b": b"\xff", "c": T0.replace(microsecond=0)}, {"a": "x"}, {}]
    rows = []
    for plane, value in enumerate(maps):
        given = dict.fromkeys(features) | {
            "map": value,
            "struct": value,
            "map_list": [value, {"z": plane}],
            "decimal": Decimal(plane) / 8,
        }
        protos = {name: python_values_to_proto_values([one], FeastType[name.upper()])[0] for name, one in given.items()}
        rows.append((nested.key("a", plane), protos, T0, None))
    store.online_write_batch(config, nested.table, rows, None)
    keys = [key for key, *_ in rows]
    found = nested.feast.online_read(nested.config, nested.table, keys, [*features])
    assert [values for _, values in found] == [protos for _, protos, _, _ in rows]
    again = store.online_read(config, nested.table, keys, features)
    assert [values for _, values in again] == [protos for _, protos, _, _ in rows]
    store.stores(config).close()


def _plain(value: Value) -> object:
    """A set has no order."""
    kind = value.WhichOneof("val")
    inner = getattr(value, kind)
    return kind, sorted(inner.val) if kind.endswith("_set_val") else inner
