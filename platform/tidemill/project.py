"""A project: the composition root that every entry point opens once.

Parts are made when they are first used, so that a command which only reads the catalog opens neither Redis nor a
dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.clock import Clock, SimulatedClock
from tidemill.errors import NotAppliedError
from tidemill.metadata.catalogs import AppliedCatalog, CatalogRepository
from tidemill.metadata.database import Database
from tidemill.parts import part, take_out
from tidemill.settings import Settings, read_project_file, read_settings

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Catalog
    from tidemill.materialize.ledger import Ledger
    from tidemill.materialize.report import RunReport
    from tidemill.materialize.run import Materializer
    from tidemill.models.deployments import DeploymentRepository
    from tidemill.offline.store import OfflineStore
    from tidemill.offline.training_set import TrainingSet
    from tidemill.online.push import PushResult
    from tidemill.online.store import OnlineStore
    from tidemill.predictions.log import PredictionLog


class Project:
    """Definitions, stores and state of one project folder. Threads may share it, but not while it is being closed."""

    def __init__(self, root: Path, *, settings: Settings, name: str, clock: Clock | None = None) -> None:
        self.root = root
        self.name = name
        self.settings = settings
        self.clock: Clock = clock or SimulatedClock(self.state / "clock.json")
        self._applied: AppliedCatalog | None = None

    @property
    def state(self) -> Path:
        """The folder of the embedded parts: databases, Redis, models, prediction log."""
        return self.root / self.settings.state

    @part
    def database(self) -> Database:
        if self.settings.metadata_url is not None:
            return Database(self.settings.metadata_url.get_secret_value())
        return Database.embedded(self.state)

    @part
    def catalogs(self) -> CatalogRepository:
        return CatalogRepository(self.database, self.name)

    @property
    def applied(self) -> AppliedCatalog:
        """The catalog in force with its version. Raises NotAppliedError before the first apply."""
        found = self._applied or self.catalogs.newest()
        if found is None:
            raise NotAppliedError(
                f"Project {self.name!r} has no applied definitions yet.", hint="Run `tidemill apply` first."
            )
        self._applied = found  # another thread's `reload` may forget it at any moment
        return found

    @property
    def catalog(self) -> Catalog:
        return self.applied.catalog

    def reload(self, *, close: bool = True) -> bool:
        """Take up a newer catalog, if there is one; the stores are then made anew. True if anything changed.

        With `close=False` the old stores stay open for whoever still holds them, and closing them is theirs to do.
        """
        if self._applied is not None and self.catalogs.newest_version() == self._applied.version:
            return False
        self._applied = None
        for name in ("offline", "online"):
            old = take_out(self, name)
            if close:
                _close(old)
        return True

    @part
    def ledger(self) -> Ledger:
        from tidemill.materialize.ledger import Ledger

        return Ledger(self.database, self.name)

    @part
    def offline(self) -> OfflineStore:
        from tidemill.offline.store import OfflineStore

        return OfflineStore(root=self.root, catalog=self.catalog, ledger=self.ledger, settings=self.settings)

    @part
    def online(self) -> OnlineStore:
        from tidemill.online.store import OnlineStore

        return OnlineStore(
            address=self.redis_address(),
            project=self.name,
            catalog=self.catalog,
            settings=self.settings,
            root=self.root,
            clock=self.clock,
        )

    @part
    def deployments(self) -> DeploymentRepository:
        from tidemill.models.deployments import DeploymentRepository

        return DeploymentRepository(self.database, self.name)

    @part
    def predictions(self) -> PredictionLog:
        from tidemill.predictions.log import PredictionLog

        return PredictionLog(self.state / "predictions")

    @part
    def materializer(self) -> Materializer:
        from tidemill.materialize.run import Materializer

        return Materializer(self)

    def redis_address(self) -> str:
        """The URL of the online store: the one set, or the embedded server's, which is started if it is not running."""
        if self.settings.redis_url is not None:
            return self.settings.redis_url.get_secret_value()
        from tidemill.online.embedded import EmbeddedRedis

        return EmbeddedRedis(self.redis_folder, maxmemory=self.settings.redis_maxmemory).ensure_started()

    def revive_redis(self) -> bool:
        """Start the embedded Redis again if it ended by itself, with what it held; whether it had.

        Raises OnlineStoreUnavailableError with the server's own words if it does not come up.
        """
        if self.settings.redis_url is not None:
            return False
        from tidemill.online.embedded import EmbeddedRedis

        return EmbeddedRedis(self.redis_folder, maxmemory=self.settings.redis_maxmemory).revive()

    @property
    def redis_folder(self) -> Path:
        return self.state / "redis"

    def training_set(
        self, features: str | Sequence[str], spine: Any, *, mode: str = "served", time_column: str | None = None
    ) -> TrainingSet:
        """Point-in-time-correct features for a spine. See `OfflineStore.training_set`."""
        return self.offline.training_set(features, spine, mode=mode, time_column=time_column)

    def push(self, source: str, frame: Any, *, to: str = "online", at: datetime | None = None) -> PushResult:
        """Write events to the online store, the offline store, or both. See `tidemill.online.push`."""
        from tidemill.online.push import push

        return push(self, source, frame, to=to, at=at or self.clock.now())

    def materialize(self, *, until: datetime | None = None, views: Sequence[str] | None = None) -> list[RunReport]:
        """Bring the online store up to `until` for all materialized views, or some."""
        at = self.clock.now()
        return self.materializer.materialize(until=until or at, views=views, at=at)

    def again(self) -> Project:
        """The same project opened once more, for a thread that takes up new definitions when it likes: with a catalog,
        stores and connections of its own, which are closed with it."""
        return Project(self.root, settings=self.settings, name=self.name, clock=self.clock)

    def close(self) -> None:
        for name in ("online", "predictions", "database"):
            _close(take_out(self, name))


def open_project(root: str | Path = ".", *, clock: Clock | None = None, settings: Settings | None = None) -> Project:
    """Open the project in `root`. Raises ProjectNotFoundError or ConfigurationError; touches no store yet."""
    folder = Path(root).resolve()
    name = read_project_file(folder)["project"]
    return Project(folder, settings=settings or read_settings(folder), name=name, clock=clock)


def _close(made: Any) -> None:
    close = getattr(made, "close", None)
    if close is not None:
        close()
