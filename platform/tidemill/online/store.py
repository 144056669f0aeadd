"""The online store: the newest value of every feature in Redis, read by plan and written newest-wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.clock import Clock, is_simulated, to_micros
from tidemill.definitions.catalog import Catalog, Projection
from tidemill.errors import DefinitionError, InputError
from tidemill.online import deletion
from tidemill.online.decoding import WrongValues
from tidemill.online.plan import ReadPlan, Rows
from tidemill.online.redis_address import is_sentinel
from tidemill.online.redis_refusals import WrongKindError
from tidemill.online.resp import RespClient
from tidemill.online.resp_async import AsyncRespClient
from tidemill.online.result import OnlineResult, Status
from tidemill.online.run_note import delete_note
from tidemill.online.single_row import SingleRow
from tidemill.online.window_row import WindowRow
from tidemill.online.writer import WriteResult, write_rows
from tidemill.settings import Settings

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore
    from tidemill.online.push import PushResult
    from tidemill.online.tile_rebuild import RebuildResult

__all__ = ["OnlineResult", "OnlineStore", "Status", "WriteResult"]


class OnlineStore:
    """Reads and writes one project's features. Thread-safe. Made anew when the catalog changes.

    Every call raises OnlineStoreUnavailableError while Redis does not answer, and works again when it does.
    """

    def __init__(
        self, *, address: str, project: str, catalog: Catalog, settings: Settings, root: Path, clock: Clock
    ) -> None:
        self.address = address
        self.project = project
        self.catalog = catalog
        self.settings = settings
        self.root = root
        self.clock = clock
        self.wrong = WrongValues()
        replicas = _replicas(settings, address)
        self.resp = RespClient(address, timeout=settings.redis_timeout, replicas=replicas)
        self._async = AsyncRespClient(address, timeout=settings.redis_timeout)
        # Of their own, since a write may have to wait for replicas, and reads need not.
        self.async_writes = AsyncRespClient(address, timeout=settings.redis_timeout, replicas=replicas)
        self._plans: dict[tuple[Any, ...], ReadPlan] = {}

    @property
    def layout(self) -> str:
        return self.settings.online_layout

    @property
    def keeps_forever(self) -> bool:
        """Whether keys get no expiry. Redis counts it on the wall clock, which says nothing while time is simulated."""
        return is_simulated(self.clock)

    def read(
        self, service: str, rows: Rows, *, at: datetime | None = None, full_feature_names: bool = False
    ) -> OnlineResult:
        """The features of a service for each row, in the rows' order.

        Args:
            service: a feature service's name.
            rows: each with the join keys (as the service names them) and the request fields of on-demand features;
                other fields are ignored. A null key matches nothing.
            at: the instant from which ttl and freshness count; default the project's clock.

        Raises NotDefinedError, InputError for a missing or wrong-typed key, StaleFeaturesError by a view's policy.
        """
        return self._read(self.plan(service, full_feature_names=full_feature_names), rows, at)

    def read_features(
        self, refs: Sequence[str], rows: Rows, *, at: datetime | None = None, full_feature_names: bool = False
    ) -> OnlineResult:
        """The same for features named one by one as `view:feature`."""
        return self._read(self.plan_of(refs, full_feature_names=full_feature_names), rows, at)

    async def aread(
        self,
        service: str,
        rows: Rows,
        *,
        at: datetime | None = None,
        full_feature_names: bool = False,
        arrays: bool = False,
    ) -> OnlineResult:
        """`read` for asyncio; concurrent reads share one connection and one write. Who asks for `arrays` may be given
        arrays instead of lists for numbers of which none is null."""
        return await self._aread(self.plan(service, full_feature_names=full_feature_names), rows, at, arrays)

    async def aread_features(
        self,
        refs: Sequence[str],
        rows: Rows,
        *,
        at: datetime | None = None,
        full_feature_names: bool = False,
        arrays: bool = False,
    ) -> OnlineResult:
        return await self._aread(self.plan_of(refs, full_feature_names=full_feature_names), rows, at, arrays)

    def plan(self, service: str, *, full_feature_names: bool = False) -> ReadPlan:
        """The service's read plan, compiled on first use."""
        key = (service, full_feature_names)
        found = self._plans.get(key)
        if found is None:
            projections = self.catalog.service(service).projections
            found = self._plans[key] = self._compile(projections, full_feature_names)
        return found

    def plan_of(self, refs: Sequence[str], *, full_feature_names: bool = False) -> ReadPlan:
        """The plan for features named `view:feature`. Neighbours of one view are read together."""
        key = (tuple(refs), full_feature_names)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) > 1_000:  # asked for by users, so without a natural bound
                self._plans.clear()
            try:
                found = self._plans[key] = self._compile(_projections(refs), full_feature_names, order=refs)
            except DefinitionError as error:  # not the definitions are wrong, but what is asked of them
                raise InputError(error.message, hint=error.hint) from None
        return found

    def write(self, view: str, frame: pl.DataFrame, *, learned: datetime | None = None) -> WriteResult:
        """Write rows under the newest-wins rule; see `writer.write_rows` for what the frame holds.

        Args:
            learned: when this value of each fact was learned; default now. A run passes the end of its interval.
        """
        found = self.catalog.view(view)
        return write_rows(
            self.resp,
            self.catalog,
            found,
            frame,
            learned=to_micros(learned or self.clock.now()),
            layout=self.layout,
            expires=not self.keeps_forever,
        )

    def push(self, stream: str, frame: Any, *, at: datetime) -> PushResult:
        """Write events of a stream to all its views, plain and windowed. See `tidemill.online.push`."""
        from tidemill.online.push import write_events

        return write_events(self, stream, frame, at)

    def rebuild_tiles(self, view: str, *, offline: OfflineStore, at: datetime) -> RebuildResult:
        """Make a windowed view's tiles from the offline store, as if its events had been pushed."""
        from tidemill.online.tile_rebuild import rebuild_tiles

        return rebuild_tiles(self, view, offline=offline, at=at)

    def delete_view(self, view: str) -> int:
        """Remove a view's data and no other's; returns how many entities had some."""
        from tidemill.online.tile_rebuild import delete_tiles

        found = self.catalog.view(view)
        delete_note(self.resp, self.catalog, found)
        tiles = delete_tiles(self, view)  # of a view that is plain too: it may have been one of windows before
        return deletion.delete_view(self.resp, self.catalog, found) + tiles

    def delete_project(self) -> int:
        """Remove all data of this project and of no other; returns how many keys that were."""
        from tidemill.online.tile_rebuild import delete_all_tiles

        return deletion.delete_project(self.resp, self.project) + delete_all_tiles(self)

    def ping(self) -> None:
        """Raises OnlineStoreUnavailableError unless Redis answers and is one that can be used."""
        self.resp.check()

    def close(self) -> None:
        self.resp.close()

    async def aclose(self) -> None:
        """`close`, and the running loop's connections."""
        await self._async.close()
        await self.async_writes.close()
        self.close()

    def _read(self, plan: ReadPlan, rows: Rows, at: datetime | None) -> OnlineResult:
        if len(rows) == 1 and plan.single is not None:
            packed = plan.single.commands(rows[0])
            if packed is not None:
                return self._read_one(plan, plan.single, rows, packed, at)
        request, parts = plan.in_two_parts(rows)
        try:
            replies = self.resp.execute(request.packed, request.replies, listener=parts)
        except WrongKindError as error:
            replies = plan.without_refusals(request, error.replies)
        return plan.decode(request, replies, self._instant(at))

    def _read_one(
        self, plan: ReadPlan, single: SingleRow | WindowRow, rows: Rows, packed: bytes, at: datetime | None
    ) -> OnlineResult:
        try:
            seen, found = self.resp.ask(packed, single.replies, single.glance, single.expected)
        except WrongKindError as error:
            request = plan.prepare(rows)
            return plan.decode(request, plan.without_refusals(request, error.replies), self._instant(at))
        instant = self._instant(at)
        answer = single.decode(found, instant, seen=seen)
        if answer is not None:
            return answer
        return plan.judge(rows, found, instant) if seen else plan.decode(plan.prepare(rows), found, instant)

    async def _aread(self, plan: ReadPlan, rows: Rows, at: datetime | None, arrays: bool) -> OnlineResult:
        request = plan.prepare(rows)
        glance = plan.glance(request)
        try:
            if glance is None:
                replies = await self._async.execute(request.packed, request.replies)
            else:
                seen, replies = await self._async.ask(request.packed, request.replies, glance)
                if seen:
                    return plan.decode_table(request, replies, self._instant(at), arrays=arrays)
        except WrongKindError as error:
            replies = plan.without_refusals(request, error.replies)
        return plan.decode(request, replies, self._instant(at), arrays=arrays)

    def _instant(self, at: datetime | None) -> int:
        """Asked after the replies came, so that no event counted in them lies after it."""
        return to_micros(at or self.clock.now())

    def _compile(
        self, projections: Sequence[Projection], full_feature_names: bool, order: Sequence[str] | None = None
    ) -> ReadPlan:
        return ReadPlan(
            self.catalog,
            projections,
            root=self.root,
            layout=self.layout,
            full_feature_names=full_feature_names,
            wrong=self.wrong,
            order=order,
        )


def _replicas(settings: Settings, address: str) -> int:
    """Where Sentinel may make another server the master, a write must be on one to be safe."""
    if settings.redis_replicas is not None:
        return settings.redis_replicas
    return 1 if is_sentinel(address) else 0


def _projections(refs: Sequence[str]) -> list[Projection]:
    found: dict[str, dict[str, None]] = {}
    for ref in refs:
        view, separator, feature = ref.partition(":")
        if not (view and separator and feature):
            raise InputError(f"{ref!r} does not name a feature.", hint="Write view:feature.")
        found.setdefault(view, {})[feature] = None
    return [Projection(view=view, features=tuple(features)) for view, features in found.items()]


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Columns of keys, as Feast's requests give them, as rows."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
