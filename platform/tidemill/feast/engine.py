"""`ArrowComputeEngine`: Feast's `materialize` through Tidemill's engine and writer, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from feast import Entity, FeatureView, OnDemandFeatureView
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from tidemill.clock import as_utc
from tidemill.definitions.catalog import Catalog, View
from tidemill.errors import ConfigurationError, UnavailableError
from tidemill.feast.online import TidemillRedisOnlineStore
from tidemill.feast.serving import ProjectStores
from tidemill.offline.latest import EVENT_TIME
from tidemill.offline.store import OfflineStore
from tidemill.online.store import OnlineStore

_JUST = timedelta(microseconds=1)
_ROWS_AT_ONCE = 100_000


class ArrowComputeEngineConfig(FeastConfigBaseModel):
    """`batch_engine:` in `feature_store.yaml`."""

    type: Literal["tidemill.feast.engine.ArrowComputeEngine"] = "tidemill.feast.engine.ArrowComputeEngine"


@dataclass
class ArrowMaterializationJob(MaterializationJob):
    """What became of one view; it has ended when Feast gets to see it."""

    task: MaterializationTask
    failure: Exception | None = None

    def status(self) -> MaterializationJobStatus:
        return MaterializationJobStatus.SUCCEEDED if self.failure is None else MaterializationJobStatus.ERROR

    def error(self) -> BaseException | None:
        return self.failure

    def should_be_retried(self) -> bool:
        return False

    def job_id(self) -> str:
        return f"{self.task.feature_view.name}-{self.task.start_time}-{self.task.end_time}"

    def url(self) -> str | None:
        return None


class ArrowComputeEngine(ComputeEngine):
    """Loads the newest row of each key in Feast's interval, both ends included, under the newest-wins rule.

    A windowed view that a stream keeps current gets its tiles made anew from history. Needs the online store
    `TidemillRedisOnlineStore`.
    """

    def update(
        self,
        project: str,
        views_to_delete: Sequence[FeatureView],
        views_to_keep: Sequence[FeatureView | OnDemandFeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Nothing has to be prepared."""

    def teardown_infra(self, project: str, fvs: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Nothing was prepared."""

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> RetrievalJob | pa.Table:
        """As the offline store gives them."""
        view = task.feature_view
        return self.offline_store.get_historical_features(
            config=self.repo_config,
            feature_views=[view],
            feature_refs=[f"{view.projection.name_to_use()}:{field.name}" for field in view.features],
            entity_df=task.entity_df,
            registry=registry,
            project=task.project,
            full_feature_names=task.full_feature_name,
        )

    @property
    def supports_batch(self) -> bool:
        """All views of one `materialize` come in one call, so that views of one stream are rebuilt together."""
        return True

    def materialize(
        self,
        registry: BaseRegistry,  # noqa: ARG002 - Feast's signature; the tasks say all
        tasks: MaterializationTask | list[MaterializationTask],
        **_settings: Any,
    ) -> list[MaterializationJob]:
        rebuilt: set[tuple[str | None, str | None]] = set()
        found = [tasks] if isinstance(tasks, MaterializationTask) else tasks
        return [self._job(task, rebuilt) for task in found]

    def _job(self, task: MaterializationTask, rebuilt: set[tuple[str | None, str | None]]) -> ArrowMaterializationJob:
        job = ArrowMaterializationJob(task=task)
        try:
            stores = self._stores()
            _Load(stores=stores, online=stores.of_view(task.feature_view), task=task).run(rebuilt)
        except Exception as error:  # noqa: BLE001 - Feast wants to be told of any failure, and raises it itself
            job.failure = error
        return job

    def _stores(self) -> ProjectStores:
        store = self.online_store
        if not isinstance(store, TidemillRedisOnlineStore):
            raise ConfigurationError(
                f"ArrowComputeEngine cannot write to {type(store).__name__}.",
                hint="Set online_store: {type: tidemill.feast.online.TidemillRedisOnlineStore}, or another engine.",
            )
        return store.stores(self.repo_config)


@dataclass(frozen=True, kw_only=True)
class _Load:
    """One view's load. Where definitions were applied with Tidemill, the ledger hears of it: what the online store
    holds at an instant is what training sets in served mode go by."""

    stores: ProjectStores
    online: OnlineStore
    task: MaterializationTask

    def run(self, rebuilt: set[tuple[str | None, str | None]]) -> None:
        view = self.online.catalog.view(self.task.feature_view.name)
        start, end = as_utc(self.task.start_time), as_utc(self.task.end_time)
        in_ledger = self._is_in_ledger(view)
        loaded = self.stores.project.ledger.last_cutoff(view.name) if in_ledger else None
        reload = not in_ledger or (loaded is not None and start < loaded)
        if reload and view.is_windowed and view.is_pushed:
            self._rebuild(view, end, rebuilt)
        elif reload:
            self._write(view, start, end)
        if in_ledger and (loaded is None or end > loaded):
            self._run_in_ledger(view, end)

    def _is_in_ledger(self, view: View) -> bool:
        applied = self.stores.applied
        return applied is not None and not self.task.disable_event_timestamp and view in applied.views

    def _run_in_ledger(self, view: View, end: datetime) -> None:
        project = self.stores.project
        project.reload()
        now, names = project.clock.now(), _loaded_together(view, self.online.catalog)
        for report in project.materializer.materialize(until=min(end, now), views=names, at=now, kind="feast"):
            if report.error is not None:
                raise UnavailableError(f"View {view.name!r} could not be loaded: {report.error}")

    def _rebuild(self, view: View, end: datetime, rebuilt: set[tuple[str | None, str | None]]) -> None:
        """Views of one stream that name events alike are rebuilt together, whichever of them is asked for first."""
        together = (view.stream, view.event_id)
        if together not in rebuilt or view.event_id is None:
            self.online.rebuild_tiles(view.name, offline=self._offline(), at=end)
            rebuilt.add(together)

    def _write(self, view: View, start: datetime, end: datetime) -> None:
        rows = self._offline().latest(view.name, start=start - _JUST, end=end)
        if self.task.disable_event_timestamp:
            now = self.stores.project.clock.now()
            rows = rows.with_columns(pl.lit(now).dt.cast_time_unit("us").alias(EVENT_TIME))
        bar = None if self.task.tqdm_builder is None else self.task.tqdm_builder(rows.height)
        for part in rows.iter_slices(_ROWS_AT_ONCE):
            self.online.write(view.name, part, learned=end)
            if bar is not None:
                bar.update(part.height)
        if bar is not None:
            bar.close()

    def _offline(self) -> OfflineStore:
        catalog, settings = self.online.catalog, self.stores.project.settings
        return OfflineStore(root=self.stores.root, catalog=catalog, settings=settings)


def _loaded_together(view: View, catalog: Catalog) -> list[str]:
    """The view, or all views of its stream whose tiles are built in one pass over the same events."""
    if not (view.is_windowed and view.is_pushed and view.stream is not None):
        return [view.name]
    siblings = [item for item in catalog.views_of_stream(view.stream) if item.is_windowed and item.is_pushed]
    return [item.name for item in siblings if item.online and item.event_id == view.event_id]
