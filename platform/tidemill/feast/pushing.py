"""Feast's own `push` of events to windowed views.

`FeatureStore.push` looks for a view's outputs among the columns before it asks the online store, so that events, of
which windows are made, never arrive. Where the online store is ours and one of the source's views is windowed, the
events are pushed as `project.push` does it, to all views of the source at once; everything else stays Feast's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from feast import FeatureStore, FeatureView
from feast.data_source import PushMode

from tidemill.errors import InputError
from tidemill.feast.historical import registered_view
from tidemill.online.push import PushResult, write_events

if TYPE_CHECKING:
    from tidemill.feast.serving import ProjectStores

_MARK = "_changed_by_tidemill"


def let_push_reach_windows() -> None:
    """Teach `FeatureStore.push` and `push_async` about windowed views. Done once for each process."""
    original, original_async = FeatureStore.push, FeatureStore.push_async
    if hasattr(original, _MARK):
        return

    @wraps(original)
    def push(
        self: FeatureStore,
        push_source_name: str,
        df: Any,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,
    ) -> None:
        views = [] if to == PushMode.OFFLINE else _views_with_windows(self, push_source_name, allow_registry_cache)
        if not views:
            original(self, push_source_name, df, allow_registry_cache, to, transform_on_write)
            return
        if to == PushMode.ONLINE_AND_OFFLINE:
            original(self, push_source_name, df, allow_registry_cache, PushMode.OFFLINE, transform_on_write)
        stores: ProjectStores = self._get_provider().online_store.stores(self.config)  # pyright: ignore[reportAttributeAccessIssue] - ours
        _refuse_losses(write_events(stores.of_views(views), push_source_name, df, stores.project.clock.now()))

    @wraps(original_async)
    async def push_async(
        self: FeatureStore,
        push_source_name: str,
        df: Any,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        **others: Any,
    ) -> None:
        if to != PushMode.OFFLINE and _views_with_windows(self, push_source_name, allow_registry_cache):
            await asyncio.to_thread(push, self, push_source_name, df, allow_registry_cache, to)
        else:
            await original_async(self, push_source_name, df, allow_registry_cache, to, **others)

    setattr(push, _MARK, True)
    FeatureStore.push, FeatureStore.push_async = push, push_async


def _views_with_windows(store: FeatureStore, source: str, allow_cache: bool) -> Sequence[FeatureView]:
    """The views of a push source whose online store is ours, if one of them is windowed."""
    from tidemill.feast.online import TidemillRedisOnlineStoreConfig

    if not isinstance(store.config.online_store, TidemillRedisOnlineStoreConfig):
        return []
    views = [view for view in store._fvs_for_push_source_or_raise(source, allow_cache) if isinstance(view, FeatureView)]
    views.sort(key=lambda view: view.name)
    return views if any(registered_view(view).is_windowed for view in views) else []


def _refuse_losses(result: PushResult) -> None:
    """Feast's push returns nothing, so that events which were not taken can only be told by an error."""
    if result.rejected:
        first = result.rejected[0]
        raise InputError(
            f"{len(result.rejected)} rows were not pushed, the first of them row {first.row}: {first.reason}.",
            hint="The others count; pushing them again changes nothing where the view names an event id.",
        )
