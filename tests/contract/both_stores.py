"""One view in Feast's words and in ours, over one Redis, with a value of every type that both know."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import redis
from feast import Entity as FeastEntity
from feast import FeatureView, Field, FileSource, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import from_value_type
from feast.value_type import ValueType as FeastType
from online_stores import open_store

from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, ValueType, View
from tidemill.online.embedded import EmbeddedRedis

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
NESTED = {
    "BYTES_SET": {b"a", b"\xff"},
    "STRING_SET": {"a", ""},
    "INT32_SET": {1, -2},
    "INT64_SET": {1, -(2**62)},
    "DOUBLE_SET": {0.5, -1.0},
    "FLOAT_SET": {0.5},
    "BOOL_SET": {True, False},
    "UNIX_TIMESTAMP_SET": {datetime(2013, 1, 1, tzinfo=UTC)},
    "MAP": {"a": 1, "b": "x", "c": {"d": 2.5}, "e": [1, 2]},
    "MAP_LIST": [{"a": 1}, {"a": 2}],
    "STRUCT": {"a": 1, "b": "x"},
    "JSON": '{"a": 1}',
    "DECIMAL": Decimal("12.30"),
}


class Both:
    """The same view in Feast's words and in ours, on one Redis; its key is a zone and, if it has two, a plane."""

    def __init__(self, server: EmbeddedRedis, root: Path, names: list[str], *, keys: int = 2) -> None:
        self.keys = keys
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
            entities=entities[:keys],
            schema=[Field(name=name, dtype=from_value_type(FeastType[name.upper()])) for name in names]
            + [
                Field(name="zone", dtype=from_value_type(FeastType.STRING)),
                Field(name="id", dtype=from_value_type(FeastType.INT64)),
            ][:keys],
            source=FileSource(path="x.parquet", timestamp_field="at"),
        )
        view = View(
            name="everything",
            entities=("route", "plane")[:keys],
            join_keys=("zone", "id")[:keys],
            features=tuple(Feature(name=name, dtype=ValueType[name.upper()]) for name in names),
            source="s",
        )
        self.catalog = Catalog(
            project="prod",
            entities=(
                Entity(name="route", join_key="zone", dtype=ValueType.STRING),
                Entity(name="plane", join_key="id", dtype=ValueType.INT64),
            ),
            views=(view,),
            services=(Service(name="all", projections=(Projection(view="everything", features=tuple(names)),)),),
        )
        self.ours = open_store(self.catalog, server.url, at=T0, root=root)

    def feast_writes(self, zone: str, plane: int, values: dict[str, object], at: datetime) -> None:
        protos = {name: python_values_to_proto_values([values[name]], FeastType[name.upper()])[0] for name in values}
        self.feast.online_write_batch(self.config, self.table, [(self.key(zone, plane), protos, at, None)], None)

    def we_write(self, zone: str, plane: int, values: dict[str, object], at: datetime) -> None:
        columns = [
            pl.Series("zone", [zone]),
            pl.Series("id", [plane]),
            *(pl.Series(name, [value], dtype=ValueType[name.upper()].polars()) for name, value in values.items()),
            pl.Series("__event_time", [at], dtype=pl.Datetime("us", "UTC")),
            pl.Series("__known_time", [at], dtype=pl.Datetime("us", "UTC")),
        ]
        self.ours.write("everything", pl.DataFrame(columns))

    def key(self, zone: str, plane: int) -> EntityKey:
        """The entity in Feast's words."""
        values = [Value(string_val=zone), Value(int64_val=plane)]
        return EntityKey(join_keys=["zone", "id"][: self.keys], entity_values=values[: self.keys])

    def stored(self) -> dict[bytes, dict[bytes, bytes]]:
        """Everything in Redis but what Feast does not know of."""
        return {
            key: {name: raw for name, raw in self.redis.hgetall(key).items() if not name.startswith(b"_kt:")}
            for key in self.redis.scan_iter()
        }
