"""`TidemillRedisOnlineStore`: Feast's Redis layout, with the semantics of Tidemill."""

from __future__ import annotations

from typing import Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

from tidemill.feast.registry_path import resolve_registry_paths

resolve_registry_paths()


class TidemillRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """`online_store:` in `feature_store.yaml`.

    Without a `connection_string` the project's own Redis is used: `redis_url` of the `tidemill:` section, or the
    embedded server.
    """

    type: Literal["tidemill.feast.online.TidemillRedisOnlineStore"] = "tidemill.feast.online.TidemillRedisOnlineStore"  # pyright: ignore[reportIncompatibleVariableOverride]
    connection_string: str = ""  # pyright: ignore[reportIncompatibleVariableOverride]


class TidemillRedisOnlineStore(RedisOnlineStore):
    """Reads and writes as Tidemill does, for Feast's SDK and server."""
