"""The small parts of the plug-ins: values, addresses, registry paths."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tidemill.definitions.types import ValueType
from tidemill.errors import ConfigurationError
from tidemill.feast.online import TidemillRedisOnlineStoreConfig
from tidemill.feast.registry_defaults import absolute_sqlite_url
from tidemill.feast.serving import url_of
from tidemill.feast.values import to_python, to_values

MOMENT = datetime(2024, 3, 5, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (ValueType.INT64, [2**53 + 1, None, -1]),
        (ValueType.INT32, [7, None]),
        (ValueType.DOUBLE, [0.1, None]),
        (ValueType.STRING, ["é", "", None]),
        (ValueType.BYTES, [b"\x00\xff", None]),
        (ValueType.BOOL, [True, False, None]),
        (ValueType.UNIX_TIMESTAMP, [MOMENT, None]),
        (ValueType.INT64_LIST, [[1, 2], None, [2**60]]),
        (ValueType.STRING_LIST, [["a", "b"], None]),
        (ValueType.UNIX_TIMESTAMP_LIST, [[MOMENT], None]),
    ],
)
def test_values_come_back_from_protobuf_as_they_went(dtype: ValueType, values: list[Any]) -> None:
    assert [to_python(value, dtype) for value in to_values(values, dtype)] == values


def test_nan_is_a_value_and_null_is_none() -> None:
    nan, null = to_values([float("nan"), None], ValueType.DOUBLE)

    assert nan.WhichOneof("val") == "double_val"
    assert to_python(nan) != to_python(nan)
    assert null.WhichOneof("val") is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:6379", "redis://localhost:6379/0"),
        ("redis:6379,db=3,ssl=true,password=a=b", "rediss://:a=b@redis:6379/3"),
        ("redis:6379,username=me,password=p@ss/word", "redis://me:p%40ss%2Fword@redis:6379/0"),
        ("unix:///tmp/redis.sock", "unix:///tmp/redis.sock"),
    ],
)
def test_feasts_connection_strings_are_understood(text: str, url: str) -> None:
    assert url_of(TidemillRedisOnlineStoreConfig(connection_string=text)) == url


def test_several_servers_are_refused() -> None:
    from feast.infra.online_stores.redis import RedisType

    config = TidemillRedisOnlineStoreConfig(connection_string="a:1,b:2", redis_type=RedisType.redis_cluster)
    with pytest.raises(ConfigurationError, match="redis_cluster"):
        url_of(config)


def test_a_relative_registry_lies_in_the_repository(tmp_path: Path) -> None:
    assert absolute_sqlite_url("sqlite:///state/r.db", tmp_path) == f"sqlite:///{tmp_path}/state/r.db"
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:////var/r.db"])
def test_other_registries_stay_where_they_are(tmp_path: Path, url: str) -> None:
    assert absolute_sqlite_url(url, tmp_path) == url


def test_importing_feast_leaves_the_metrics_of_the_process_in_its_memory() -> None:
    program = """
import os
import tidemill.feast
from prometheus_client import values
assert not [name for name in os.environ if name.startswith("PROMETHEUS_")], "the processes we start would share files"
assert values.ValueClass is values.MutexValue
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
