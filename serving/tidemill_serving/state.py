"""What one serving process holds: the catalog in force with its store and compiled schemas, and the models.

Everything a request needs hangs on one frozen `Snapshot`. A new catalog makes a new snapshot in the background, which
replaces the old one in one assignment; a request that has begun finishes on the snapshot it began with.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemill.definitions.catalog import Catalog
from tidemill.definitions.on_demand import prepare
from tidemill.errors import NotAppliedError, TidemillError, UnavailableError
from tidemill.metadata.catalogs import AppliedCatalog
from tidemill.project import Project
from tidemill_serving.batching import Batcher, Work
from tidemill_serving.limits import Limits
from tidemill_serving.metrics import Metrics
from tidemill_serving.models import ModelShelf, single_threaded
from tidemill_serving.rows import RowSchema, row_schema
from tidemill_serving.vectors import VectorWriter, service_types
from tidemill_serving.write_lane import WriteLane

if TYPE_CHECKING:
    from tidemill.online.result import OnlineResult
    from tidemill.online.store import OnlineStore

_STARTING = "The server has just begun to start; ask again in a moment."
_log = logging.getLogger("tidemill.serving")
POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A catalog in force, with what is compiled from it once.

    `schemas` and `writers` are by service; `model_schemas` by model, whose rows may carry a name of their own.
    """

    version: int
    digest: str
    catalog: Catalog
    online: OnlineStore
    schemas: Mapping[str, RowSchema] = field(repr=False)
    model_schemas: Mapping[str, RowSchema] = field(repr=False)
    writers: Mapping[str, VectorWriter] = field(repr=False)

    @classmethod
    def of(cls, applied: AppliedCatalog, online: OnlineStore) -> Snapshot:
        catalog = applied.catalog
        services = {service.name: service for service in catalog.services}
        return cls(
            version=applied.version,
            digest=catalog.digest,
            catalog=catalog,
            online=online,
            schemas={name: row_schema(catalog, service) for name, service in services.items()},
            model_schemas={
                model.name: row_schema(catalog, services[model.service], id_column=model.spine.id_column)
                for model in catalog.models
            },
            writers={name: VectorWriter.of(service_types(catalog, name)) for name in services},
        )


class ServingState:
    """The composition root of a serving process.

    `start` begins looking for new catalogs and models each second, in a thread of its own; `ready` is true once the
    first look has succeeded and all promoted models are loaded.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.limits = Limits.of(project.settings)
        self.metrics = Metrics()
        self.shelf = ModelShelf(project.deployments, project.root)
        self.reads: Batcher[Work[OnlineResult], OnlineResult] = Batcher.of_single_requests(self.limits)
        self.writes = WriteLane(pending=self.limits.pending, seconds=self.limits.request_seconds)
        self.metrics.pending.labels("read", "references").set_function(lambda: self.reads.pending)
        self.metrics.pending.labels("write", "all").set_function(lambda: self.writes.pending)
        self.metrics.log_waiting.set_function(lambda: project.predictions.waiting_seconds)
        self.model_thread = ThreadPoolExecutor(1, "tidemill-model", initializer=_keep_single_threaded)
        self.draining = False
        self.trouble: str | None = _STARTING
        self._snapshot: Snapshot | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retired: list[Snapshot] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[], None]] = []
        self._is_news = False
        self._stopping = threading.Event()
        self._refreshing = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The catalog in force. Raises NotAppliedError, or UnavailableError while the server starts."""
        if self._snapshot is None:
            if self.trouble == _STARTING:
                raise UnavailableError(f"Project {self.project.name!r} serves nothing yet.", hint=_STARTING)
            raise NotAppliedError(
                f"Project {self.project.name!r} serves nothing yet: {self.trouble}", hint="Run `tidemill apply` first."
            )
        return self._snapshot

    @property
    def ready(self) -> bool:
        return self._snapshot is not None and self.trouble is None and not self.draining

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener`, in the background thread, after every new catalog or model."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin, from within the event loop that will read."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._keep_refreshing, name="tidemill-refresh", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self.draining = True
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self.model_thread.shutdown(wait=True)
        self.writes.close()
        held = [self._snapshot] if self._snapshot is not None else []
        for snapshot in (*self._retired, *held):
            await snapshot.online.aclose()
        self._retired.clear()

    def refresh(self) -> None:
        """Look for a new catalog and new models now. Raises TidemillError where that fails; the old ones stay."""
        with self._refreshing:
            before = self._snapshot
            snapshot = self._newest_snapshot()
            changed = self.shelf.refresh(snapshot.catalog)
            self._snapshot = snapshot
            self._is_news |= changed or snapshot is not before
            if self._is_news:
                self._announce(snapshot)
                self._is_news = False  # had it failed, it would be announced by the next look
            self.trouble = None  # ready only now: the routes of what is new are there
            if before is not None and before is not snapshot:
                self._close_later(before)

    def _newest_snapshot(self) -> Snapshot:
        held = self._snapshot
        if held is not None and self.project.catalogs.newest_version() == held.version:
            return held
        self.project.reload(close=False)
        snapshot = Snapshot.of(self.project.applied, self.project.online)
        self._prepare_functions(snapshot.catalog)
        return snapshot

    def _prepare_functions(self, catalog: Catalog) -> None:
        """Import the users' functions before anybody waits for them. One that cannot be had fails its own requests."""
        for view in catalog.on_demand_views:
            try:
                prepare(view, self.project.root)
            except TidemillError as error:
                # As text: whoever keeps log records would keep, with the error, all that its frames hold.
                _log.error("On-demand view %s cannot be served: %s", view.name, str(error))

    def _announce(self, snapshot: Snapshot) -> None:
        self.metrics.catalog_version.set(snapshot.version)
        self.metrics.served.versions = {name: served.version for name, served in self.shelf.served.items()}
        for listener in self._listeners:
            listener()

    def _close_later(self, snapshot: Snapshot) -> None:
        """Requests that began on the old snapshot may still read from its store for as long as a request may take."""
        self._retired.append(snapshot)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, self.limits.request_seconds + 1, self._close_oldest)

    def _close_oldest(self) -> None:
        if self._retired and self._loop is not None:
            task = self._loop.create_task(self._retired.pop(0).online.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _keep_refreshing(self) -> None:
        while True:
            self._revive_redis()
            self._refresh_quietly()
            if self._stopping.wait(POLL_SECONDS):
                return

    def _revive_redis(self) -> None:
        """A Redis of the project's own has nobody else who would start it again."""
        try:
            if self.project.revive_redis():
                _log.warning("The embedded Redis had ended by itself; it was started again.")
        except TidemillError as error:
            _log.error("The embedded Redis ended and does not start again: %s", str(error))

    def _refresh_quietly(self) -> None:
        try:
            self.refresh()
        except NotAppliedError as error:
            self.trouble = str(error)
        except TidemillError as error:
            self._note(str(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever went wrong once
            _log.exception("Looking for a new catalog and new models failed.")
            self._note(f"{type(error).__name__}: {error}")

    def _note(self, trouble: str) -> None:
        self.metrics.refresh_failures.inc()
        if self._snapshot is None:
            self.trouble = trouble
        _log.warning("Looking for a new catalog and new models failed: %s", trouble)


_kept_limits: list[object] = []


def _keep_single_threaded() -> None:
    _kept_limits.append(single_threaded())
