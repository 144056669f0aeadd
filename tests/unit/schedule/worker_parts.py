"""A small project whose worker is looked at: what it loads is noted, and fails when told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr

from tidemill.clock import ManualClock
from tidemill.definitions import (
    Catalog,
    Entity,
    Feature,
    Projection,
    Schedule,
    Service,
    Source,
    ValueType,
    View,
)
from tidemill.definitions.catalog import CodeReference, LabelDefinition, Model, SpineDefinition, Split, Trigger
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.project import Project, open_project
from tidemill.schedule.worker import TaskReport
from tidemill.settings import Settings

EXTRACT = """
import polars as pl
from datetime import timedelta
from tidemill.extract import extracts

@extracts(source="measured")
def measured(start, end):
    hours = pl.datetime_range(start, end, "1h", closed="left", time_zone="UTC", eager=True)
    return pl.DataFrame({"event_time": hours, "known_time": hours}).with_columns(origin=pl.lit("JFK"), temp=1.0)
"""


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2013, 10, 1, hour, minute, tzinfo=UTC)


@dataclass
class OnlineLoads:
    """Stands where the materializer stands: loads a view through the ledger, and fails when told to."""

    project: Project
    loads: list[tuple[str, datetime | None, datetime]] = field(default_factory=list)
    failing: bool = False

    def materialize(
        self, *, until: datetime, views: Sequence[str], at: datetime, kind: str = "manual"
    ) -> list[TaskReport]:
        (view,) = views
        start = self.project.ledger.last_cutoff(view)
        if start is not None and start >= until:
            return []
        if self.failing:
            raise OnlineStoreUnavailableError("The online store does not answer.")
        claim = self.project.ledger.claim(view, start=start, end=until, at=at, kind=kind)
        if claim is None:
            return []
        self.loads.append((view, start, until))
        self.project.ledger.succeed(claim, cutoff=until, rows_read=2, rows_written=1, rows_skipped=0, at=at)
        return [
            TaskReport(
                kind=kind, view=view, start=start, end=until, cutoff=until, rows_read=2, rows_written=1, rows_skipped=0,
                seconds=0.0, state="succeeded",
            )
        ]  # fmt: skip


def catalog_with(schedule: Schedule, *, source_schedule: Schedule | None = None) -> Catalog:
    source = Source(
        name="measured",
        path="data/measured",
        timestamp_field="event_time",
        known_field="known_time",
        schedule=source_schedule,
    )
    view = View(
        name="weather",
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="temp", dtype=ValueType.DOUBLE),),
        source="measured",
        schedule=schedule,
    )
    entity = Entity(name="origin", join_key="origin", dtype=ValueType.STRING)
    service = Service(name="weather_v1", projections=(Projection(view="weather", features=("temp",)),))
    return Catalog(project="airports", entities=(entity,), sources=(source,), views=(view,), services=(service,))


def model_with(*triggers: Trigger) -> Model:
    return Model(
        name="late",
        service="weather_v1",
        spine=SpineDefinition(source="measured", time_column="event_time", id_column="id", keys=()),
        label=LabelDefinition(source="measured", column="late", id_column="id"),
        estimator=CodeReference(module="estimators", qualname="make", digest="0"),
        split=Split(test=timedelta(days=1)),
        metrics=("roc_auc",),
        retrain=triggers,
    )


HOURLY = Schedule(cron="5 * * * *")


class Airports:
    def __init__(self, root: Path, metadata_url: str) -> None:
        (root / "feature_store.yaml").write_text("project: airports\n")
        self.clock = ManualClock(at(0))
        self.project = open_project(root, clock=self.clock, settings=Settings(metadata_url=SecretStr(metadata_url)))
        self.loads = OnlineLoads(self.project)
        self.project.__dict__["materializer"] = self.loads

    def apply(self, catalog: Catalog) -> None:
        self.project.catalogs.add(catalog, at=at(0))
        self.project.reload()
