"""`TidemillRedisOnlineStore`: Feast's Redis layout, with the semantics of Tidemill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import polars as pl
from feast import Entity, FeatureService, FeatureView, utils
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp

from tidemill.definitions.catalog import Feature
from tidemill.definitions.series import declared_series
from tidemill.definitions.windows import refuse_values
from tidemill.errors import InputError
from tidemill.feast.pushing import let_push_reach_windows
from tidemill.feast.registry_defaults import change_registry_defaults
from tidemill.feast.serving import ASKED, ProjectStores, rows_of
from tidemill.feast.values import to_python, to_stored, to_values
from tidemill.online.result import OnlineResult, Status
from tidemill.online.store import OnlineStore
from tidemill.online.writer import EVENT_TIME, KNOWN_TIME

change_registry_defaults()
let_push_reach_windows()

_Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
_UTC_MICROS = pl.Datetime("us", "UTC")


class TidemillRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """`online_store:` in `feature_store.yaml`.

    Without a `connection_string` the project's own Redis is used: `redis_url` of the `tidemill:` section, or the
    embedded server.
    """

    type: Literal["tidemill.feast.online.TidemillRedisOnlineStore"] = "tidemill.feast.online.TidemillRedisOnlineStore"  # pyright: ignore[reportIncompatibleVariableOverride]
    connection_string: str = ""  # pyright: ignore[reportIncompatibleVariableOverride]


class TidemillRedisOnlineStore(RedisOnlineStore):
    """Reads and writes as Tidemill does, for Feast's SDK and server.

    Unknown entities are NOT_FOUND, values past their ttl are null and OUTSIDE_MAX_AGE, windows slide to the moment of
    the read, columns come in the order asked for, and a write keeps the newest fact.
    """

    _projects: ProjectStores | None = None

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        *args: Any,
        **settings: Any,
    ) -> OnlineResponse:
        self.stores(config)
        response = super().get_online_features(config, features, *args, **settings)
        return _in_order(response, features, full_names=bool(settings.get("full_feature_names")))

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        *args: Any,
        **settings: Any,
    ) -> OnlineResponse:
        self.stores(config)
        response = await super().get_online_features_async(config, features, *args, **settings)
        return _in_order(response, features, full_names=bool(settings.get("full_feature_names")))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        names = requested_features or [field.name for field in table.features]
        store = self.stores(config).of_request([(table, names)])
        return _read_rows(_read(store, [_key_row(table, key) for key in entity_keys]), len(entity_keys))

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[_Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows under the newest-wins rule. Raises InputError for a windowed view, which is made of events.

        On-demand and label views have no history to agree with; they are written as Feast writes them.
        """
        stores = self.stores(config)
        if not isinstance(table, FeatureView):
            super().online_write_batch(config, table, list(data), progress)
            return
        store = stores.of_view(table)
        view = store.catalog.view(table.name)
        refuse_values(view)
        if data:
            store.write(view.name, _frame(table, data, store))
        if progress is not None:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[_Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],  # noqa: ARG002 - nothing has to be prepared
        entities_to_delete: Sequence[Entity],  # noqa: ARG002
        entities_to_keep: Sequence[Entity],  # noqa: ARG002
        partial: bool,  # noqa: ARG002
    ) -> None:
        """Delete the data of views that are gone; Redis is not even started where there are none."""
        stores = self.stores(config)
        for table in () if stores.never_used else tables_to_delete:
            if isinstance(table, FeatureView):
                stores.of_view(table).delete_view(table.name)
            else:
                self.delete_table(config, table)

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[FeatureView],  # noqa: ARG002 - Feast leaves stream views out of this list
        entities: Sequence[Entity],  # noqa: ARG002
    ) -> None:
        """Delete all data of this project, and of no other."""
        self.stores(config).of_project().delete_project()

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: Sequence[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """All views in one round trip; on-demand and label views that Feast wrote itself in another."""
        ours = [(table, features) for table, features in grouped_refs if isinstance(table, FeatureView)]
        others = [(table, features) for table, features in grouped_refs if not isinstance(table, FeatureView)]
        settings = (full_feature_names, include_feature_view_version_metadata)
        keys = (join_key_values, entity_name_to_join_key_map)
        super()._read_features_per_fv(config, others, *keys, online_features_response, *settings)
        if not ours:
            return
        store = self.stores(config).of_request(ours)
        result = _read(store, _plain_rows(join_key_values))
        for table, features in ours:
            _append(online_features_response, table, features, result, full_feature_names)
            if include_feature_view_version_metadata:
                _append_version(online_features_response, table)

    async def _read_features_per_fv_async(self, *args: Any, **settings: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *args, **settings)

    def stores(self, config: RepoConfig) -> ProjectStores:
        if self._projects is None:
            self._projects = ProjectStores(config)
        return self._projects

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:  # noqa: ARG002 - Feast's signature
        """redis-py's client, for what Feast does with Redis itself (precomputed vectors)."""
        if self._client is None:
            from redis import Redis

            if self._projects is None:
                raise InputError("This online store has not been used with a configuration yet.")
            self._client = Redis.from_url(self._projects.address())
        return self._client


def _read(store: OnlineStore, rows: list[dict[str, Any]]) -> OnlineResult:
    return store.read(ASKED, rows, full_feature_names=True)


def _plain_rows(join_key_values: Mapping[str, Sequence[Value]]) -> list[dict[str, Any]]:
    return rows_of({name: [to_python(value) for value in values] for name, values in join_key_values.items()})


def _key_row(table: FeatureView, key: EntityKey) -> dict[str, Any]:
    """An entity key under the names by which the table's projection looks it up."""
    renamed = table.projection.join_key_map
    values = {name: [to_python(value)] for name, value in zip(key.join_keys, key.entity_values, strict=True)}
    return rows_of({renamed.get(name, name): value for name, value in values.items()})[0]


def _append(
    response: GetOnlineFeaturesResponse,
    table: FeatureView,
    features: Sequence[str],
    result: OnlineResult,
    full_names: bool,
) -> None:
    alias = table.projection.name_to_use()
    for feature in features:
        column = f"{alias}__{feature}"
        response.metadata.feature_names.val.append(column if full_names else feature)
        response.results.append(
            GetOnlineFeaturesResponse.FeatureVector(
                values=to_values(result.values[column], result.dtypes[column]),
                statuses=[int(status) for status in result.statuses[column]],  # pyright: ignore[reportArgumentType]
                event_timestamps=[_timestamp(micros) for micros in result.event_times[column]],
            )
        )


def _append_version(response: GetOnlineFeaturesResponse, table: FeatureView) -> None:
    name = table.projection.name_alias or table.projection.name
    if name not in [item.name for item in response.metadata.feature_view_metadata]:
        item = response.metadata.feature_view_metadata.add()
        item.name, item.version = name, getattr(table, "current_version_number", 0) or 0


def _read_rows(result: OnlineResult, rows: int) -> list[tuple[datetime | None, dict[str, Value] | None]]:
    columns = {name: to_values(result.values[name], result.dtypes[name]) for name in result.names}
    found: list[tuple[datetime | None, dict[str, Value] | None]] = []
    for row in range(rows):
        if all(result.statuses[name][row] == Status.NOT_FOUND for name in result.names):
            found.append((None, None))
            continue
        times = [time for name in result.names if (time := result.event_times[name][row]) is not None]
        moment = _timestamp(max(times)).ToDatetime() if times else None
        found.append((moment, {name.split("__", 1)[1]: values[row] for name, values in columns.items()}))
    return found


def _timestamp(micros: int | None) -> Timestamp:
    found = Timestamp()
    if micros is not None:
        found.FromMicroseconds(micros)
    return found


def _frame(table: FeatureView, data: Sequence[_Row], store: OnlineStore) -> pl.DataFrame:
    """Rows of Feast's protobufs as the frame that the writer takes."""
    view = store.catalog.view(table.name)
    keys = {name: [] for name in view.join_keys}
    for key, _, _, _ in data:
        values = dict(zip(key.join_keys, key.entity_values, strict=True))
        for name in keys:
            keys[name].append(to_python(values[name]))
    columns = [
        pl.Series(name, keys[name], dtype.polars())
        for name, dtype in zip(view.join_keys, store.catalog.key_types(view), strict=True)
    ]
    for feature in view.features:
        found = [to_stored(values[feature.name]) if feature.name in values else None for _, values, _, _ in data]
        columns.append(_column(feature, found))
    event = [utils.make_tzaware(time) for _, _, time, _ in data]
    known = [
        time if created is None else utils.make_tzaware(created)
        for (_, _, _, created), time in zip(data, event, strict=True)
    ]
    return pl.DataFrame(
        [*columns, pl.Series(EVENT_TIME, event, _UTC_MICROS), pl.Series(KNOWN_TIME, known, _UTC_MICROS)]
    )


def _column(feature: Feature, found: list[Any]) -> pl.Series:
    wanted = feature.dtype.polars()
    if wanted is None:
        return declared_series(feature.name, found, feature.dtype)
    return pl.Series(feature.name, found, wanted, strict=False)


def _in_order(response: OnlineResponse, features: list[str] | FeatureService, *, full_names: bool) -> OnlineResponse:
    """Keys and request data first, then features as asked; Feast's order depends on the process's hash seed."""
    asked = [f"{view}__{name}" if full_names else name for view, name in _asked(features)]
    proto = response.proto
    names = list(proto.metadata.feature_names.val)
    places = {name: place for place, name in enumerate(names)}
    order = [name for name in sorted(names) if name not in asked]
    order += [name for name in dict.fromkeys(asked) if name in places]
    results = [proto.results[places[name]] for name in order]
    fresh = GetOnlineFeaturesResponse(metadata=proto.metadata, results=results, status=proto.status)
    fresh.metadata.feature_names.ClearField("val")
    fresh.metadata.feature_names.val.extend(order)
    response.proto = fresh
    return response


def _asked(features: list[str] | FeatureService) -> list[tuple[str, str]]:
    if isinstance(features, FeatureService):
        return [
            (projection.name_to_use(), field.name)
            for projection in features.feature_view_projections
            for field in projection.features
        ]
    return [(reference.partition(":")[0], reference.partition(":")[2]) for reference in features]
