"""A project with a stream of departures and windows over it, for the tests of pushing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from online_stores import open_store

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import key_layout
from tidemill.online.tiles import TilePlan

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
F = AggregationFunction


def delays(name: str = "origin_delays", *, key: str = "origin", event_id: str | None = "flight_id") -> View:
    wanted = (("departures_1h", F.COUNT, "", ValueType.INT64), ("delay_1h", F.SUM, "delay", ValueType.INT64))
    return View(
        name=name,
        entities=(key,),
        join_keys=(key,),
        features=tuple(Field(name=feature, dtype=dtype) for feature, _, _, dtype in wanted),
        source="departures",
        stream="departed",
        aggregations=tuple(
            Aggregation(name=feature, function=function, column=column, window=HOUR, hop=timedelta(minutes=5))
            for feature, function, column, _ in wanted
        ),
        event_id=event_id,
    )


def catalog_of(*views: View, project: str = "flights") -> Catalog:
    return Catalog(
        project=project,
        entities=tuple(Entity(name=name, join_key=name, dtype=ValueType.STRING) for name in ("origin", "carrier")),
        sources=(
            Source(name="departures", path="data/departures", timestamp_field="departed_at", known_field="known_at"),
        ),
        streams=(Stream(name="departed", kind="push", source="departures"),),
        views=views,
    )


class OpenProject(Protocol):
    """The fixture `project_at`: opens a project's parts as `push` uses them, and closes them after the test."""

    def __call__(
        self, *views: View, name: str = "flights", address: str | None = None, root: Path | None = None
    ) -> Any: ...


def parts_of_project(address: str, root: Path, *views: View, name: str) -> Any:
    catalog = catalog_of(*(views or (delays(),)), project=name)
    online = open_store(catalog, address, at=NOW, root=root)
    offline = OfflineStore(root=root, catalog=catalog, ledger=None, settings=online.settings)
    return SimpleNamespace(catalog=catalog, settings=online.settings, online=online, offline=offline, name=name)


def departure(number: int, *, minutes: float = 1, **others: Any) -> dict[str, Any]:
    at = NOW - timedelta(minutes=minutes)
    return {
        "origin": "JFK", "carrier": "B6", "departed_at": at, "known_at": at, "delay": number, "flight_id": f"f{number}",
    } | others  # fmt: skip


def window(project: Any, view: str = "origin_delays", key: str = "JFK", at: datetime = NOW) -> tuple[int, int | None]:
    """(departures in the last hour, their delay) of an airport."""
    found = project.catalog.view(view)
    plan = TilePlan(project.name, [(found, ["departures_1h", "delay_1h"])])
    keys = [plan.key(0, key_layout(project.catalog, found).encode([key]))]
    columns = plan.decode([project.online.resp.pipeline([("GET", name) for name in keys])], to_micros(at))[0]
    return columns.values["departures_1h"][0], columns.values["delay_1h"][0]
