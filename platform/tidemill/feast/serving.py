"""Feast's online requests put to Tidemill's online store.

Where the project's definitions were applied with `tidemill apply`, the store works from the applied catalog; where only
Feast's own apply was used, from the views that Feast hands over.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.redis import RedisOnlineStoreConfig, RedisType
from feast.repo_config import RepoConfig

from tidemill.definitions import catalog as nouns
from tidemill.definitions.catalog import Catalog
from tidemill.errors import ConfigurationError
from tidemill.feast.historical import catalog_of_views, registered_view
from tidemill.online.store import OnlineStore
from tidemill.project import Project, open_project

ASKED = "__asked_by_feast"
_LOOK_AGAIN = 1.0  # seconds after which a newer applied catalog is looked for
_MOST_STORES = 100


@dataclass(frozen=True, kw_only=True)
class _Applied:
    version: int
    catalog: Catalog | None


class ProjectStores:
    """The online stores behind one Feast configuration, each made once. Thread-safe."""

    def __init__(self, config: RepoConfig) -> None:
        self.root = Path(config.repo_path or Path.cwd()).resolve()
        self.name = config.project
        self.project: Project = open_project(self.root)
        self._config = _redis_of(config)
        self._stores: dict[Any, OnlineStore] = {}
        self._applied = _Applied(version=0, catalog=None)
        self._looked_at = float("-inf")
        self._making = threading.Lock()

    def of_view(self, view: FeatureView) -> OnlineStore:
        """A store whose catalog holds this view."""
        return self.of_views([view])

    def of_views(self, views: Sequence[FeatureView]) -> OnlineStore:
        """A store whose catalog holds these views."""
        return self._store(tuple(registered_view(view) for view in views), views, (), None)

    def of_request(self, views: Sequence[tuple[FeatureView, Sequence[str]]]) -> OnlineStore:
        """A store whose service `ASKED` reads the features named of each view, under its alias and keys."""
        only: dict[str, set[str]] = {}
        for view, features in views:
            only.setdefault(view.name, set()).update(features)
        found = tuple(registered_view(view, only[view.name]) for view, _ in views)
        projections = tuple(
            nouns.Projection(
                view=view.name,
                features=tuple(features),
                alias=view.projection.name_to_use(),
                join_key_map=tuple(sorted(view.projection.join_key_map.items())),
            )
            for view, features in views
        )
        return self._store(found, [view for view, _ in views], projections, only)

    def of_project(self) -> OnlineStore:
        """A store that knows no view, for what concerns all of the project's data."""
        return self._store((), [], (), None)

    def address(self) -> str:
        """The URL of Redis: Feast's `connection_string`, or the project's own, started if need be."""
        if self._config.connection_string:
            return url_of(self._config)
        return self.project.redis_address()

    @property
    def never_used(self) -> bool:
        """Whether the project's own Redis was never started, so that there is nothing in it."""
        own = not self._config.connection_string and self.project.settings.redis_url is None
        return own and not self.project.redis_folder.exists()

    @property
    def applied(self) -> Catalog | None:
        """The catalog that `tidemill apply` put in force, if it did."""
        if monotonic() - self._looked_at > _LOOK_AGAIN:
            self._look()
        return self._applied.catalog

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
        self._stores.clear()
        self.project.close()

    def _look(self) -> None:
        version = self.project.catalogs.newest_version()
        if version != self._applied.version:
            newest = self.project.catalogs.newest()
            self._applied = _Applied(version=version, catalog=None if newest is None else newest.catalog)
        self._looked_at = monotonic()

    def _store(
        self,
        found: tuple[nouns.View, ...],
        views: Sequence[FeatureView],
        projections: tuple[nouns.Projection, ...],
        only: Mapping[str, set[str]] | None,
    ) -> OnlineStore:
        applied = self.applied
        key = (found, projections, self._applied.version)
        with self._making:
            store = self._stores.get(key)
            if store is None:
                if len(self._stores) >= _MOST_STORES:
                    self._stores.clear()  # others may still be reading through them, so they are not closed
                catalog = self._catalog(applied, found, views, only)
                services = (nouns.Service(name=ASKED, projections=projections),) if projections else ()
                store = self._stores[key] = self._open(replace(catalog, services=(*catalog.services, *services)))
            return store

    def _catalog(
        self,
        applied: Catalog | None,
        found: Sequence[nouns.View],
        views: Sequence[FeatureView],
        only: Mapping[str, set[str]] | None,
    ) -> Catalog:
        if applied is not None and all(_holds(applied, view) for view in found):
            return applied
        return catalog_of_views(self.name, views, only=only)

    def _open(self, catalog: Catalog) -> OnlineStore:
        return OnlineStore(
            address=self.address(),
            project=self.name,
            catalog=catalog,
            settings=self.project.settings,
            root=self.root,
            clock=self.project.clock,
        )


def rows_of(join_keys: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Columns of plain key values as rows, without Feast's stand-in key."""
    columns = {name: values for name, values in join_keys.items() if name != DUMMY_ENTITY_ID}
    count = max((len(values) for values in join_keys.values()), default=0)
    return [{name: values[row] for name, values in columns.items()} for row in range(count)]


def url_of(config: RedisOnlineStoreConfig) -> str:
    """Feast's `host:port,db=0,password=...,ssl=true` as a URL. Raises ConfigurationError for several servers."""
    if config.redis_type != RedisType.redis:
        raise ConfigurationError(
            f"redis_type: {config.redis_type.value} is not supported by this online store.",
            hint="Name one Redis, e.g. connection_string: localhost:6379.",
        )
    if "://" in config.connection_string:
        return config.connection_string
    host, *options = config.connection_string.split(",")
    settings = dict(option.split("=", 1) for option in options if "=" in option)
    scheme = "rediss" if settings.get("ssl", "").lower() == "true" else "redis"
    user, password = (quote(settings.get(name, ""), safe="=") for name in ("username", "password"))
    login = f"{user}:{password}@" if password else ""
    return f"{scheme}://{login}{host}/{settings.get('db', 0)}"


def _redis_of(config: RepoConfig) -> RedisOnlineStoreConfig:
    found = config.online_store
    if not isinstance(found, RedisOnlineStoreConfig):
        raise ConfigurationError(f"online_store of project {config.project!r} is not Redis.")
    return found


def _holds(applied: Catalog, view: nouns.View) -> bool:
    """Whether the applied catalog has this view, so far as Feast's registry can tell."""
    same = next((item for item in applied.views if item.name == view.name), None)
    if same is None or same.join_keys != view.join_keys or same.is_windowed != view.is_windowed:
        return False
    types = {feature.name: feature.dtype for feature in same.features}
    return all(types.get(feature.name) == feature.dtype for feature in view.features)
