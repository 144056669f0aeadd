"""Feast's own Redis store and ours share one Redis: each reads the other's rows, and what is written is the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from feast import Entity as FeastEntity
from feast import FeatureView, Field, FileSource, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import from_value_type
from feast.value_type import ValueType as FeastType

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, ValueType, View
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.store import OnlineStore, Status
from tidemill.settings import Settings

T0 = datetime(2013, 10, 1, 12, 0, 0, 123456, tzinfo=UTC)
VALUES = {
    "BYTES": b"\x00\xff",
    "STRING": "grün" * 60,
    "INT32": -5,
    "INT64": 9_007_199_254_740_993,
    "DOUBLE": -0.1,
    "FLOAT": 0.5,
    "BOOL": False,
    "UNIX_TIMESTAMP": datetime(2013, 1, 1, tzinfo=UTC),
    "BYTES_LIST": [b"a", b""],
    "STRING_LIST": ["a", ""],
    "INT32_LIST": [1, -2],
    "INT64_LIST": [1, -(2**62)],
    "DOUBLE_LIST": [0.5, -1.0],
    "FLOAT_LIST": [0.5, -1.0],
    "BOOL_LIST": [True, False],
    "UNIX_TIMESTAMP_LIST": [datetime(2013, 1, 1, tzinfo=UTC)],
}
NAMES = [name.lower() for name in VALUES]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("feast") / "redis", maxmemory="64mb")
    server.ensure_started()
    yield server
    server.stop()


class Both:
    """The same view in Feast's words and in ours, on one Redis."""

    def __init__(self, server: EmbeddedRedis, root: Path) -> None:
        self.redis = redis.Redis.from_url(server.url)
        self.redis.flushall()
        self.config = RepoConfig(
            project="prod",
            provider="local",
            registry=str(root / "registry.db"),
            online_store=RedisOnlineStoreConfig(connection_string=f"none:0,unix_socket_path={server.socket}"),
            entity_key_serialization_version=3,
        )
        self.feast = RedisOnlineStore()
        entities = [
            FeastEntity(name="route", join_keys=["zone"], value_type=FeastType.STRING),
            FeastEntity(name="plane", join_keys=["id"], value_type=FeastType.INT64),
        ]
        self.table = FeatureView(
            name="everything",
            entities=entities,
            schema=[Field(name=name, dtype=from_value_type(FeastType[name.upper()])) for name in NAMES]
            + [
                Field(name="zone", dtype=from_value_type(FeastType.STRING)),
                Field(name="id", dtype=from_value_type(FeastType.INT64)),
            ],
            source=FileSource(path="x.parquet", timestamp_field="at"),
        )
        view = View(
            name="everything",
            entities=("route", "plane"),
            join_keys=("zone", "id"),
            features=tuple(Feature(name=name, dtype=ValueType[name.upper()]) for name in NAMES),
            source="s",
        )
        catalog = Catalog(
            project="prod",
            entities=(
                Entity(name="route", join_key="zone", dtype=ValueType.STRING),
                Entity(name="plane", join_key="id", dtype=ValueType.INT64),
            ),
            views=(view,),
            services=(Service(name="all", projections=(Projection(view="everything", features=tuple(NAMES)),)),),
        )
        self.ours = OnlineStore(
            address=server.url, project="prod", catalog=catalog, settings=Settings(), root=root, clock=ManualClock(T0)
        )

    def feast_writes(self, zone: str, plane: int, values: dict[str, object], at: datetime) -> None:
        protos = {name: python_values_to_proto_values([values[name]], FeastType[name.upper()])[0] for name in values}
        self.feast.online_write_batch(self.config, self.table, [(_key(zone, plane), protos, at, None)], None)

    def we_write(self, zone: str, plane: int, values: dict[str, object], at: datetime) -> None:
        columns = [
            pl.Series("zone", [zone]),
            pl.Series("id", [plane]),
            *(pl.Series(name, [value], dtype=ValueType[name.upper()].polars()) for name, value in values.items()),
            pl.Series("__event_time", [at], dtype=pl.Datetime("us", "UTC")),
            pl.Series("__known_time", [at], dtype=pl.Datetime("us", "UTC")),
        ]
        self.ours.write("everything", pl.DataFrame(columns))

    def stored(self) -> dict[bytes, dict[bytes, bytes]]:
        """Everything in Redis but what Feast does not know of."""
        return {
            key: {name: raw for name, raw in self.redis.hgetall(key).items() if not name.startswith(b"_kt:")}
            for key in self.redis.scan_iter()
        }


def _key(zone: str, plane: int) -> EntityKey:
    return EntityKey(join_keys=["zone", "id"], entity_values=[Value(string_val=zone), Value(int64_val=plane)])


@pytest.fixture
def both(server: EmbeddedRedis, tmp_path: Path) -> Iterator[Both]:
    both = Both(server, tmp_path)
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
    ((at, values),) = both.feast.online_read(both.config, both.table, [_key("a", 1)], list(NAMES))
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
