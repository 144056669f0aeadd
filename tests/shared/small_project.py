"""A small project whose online store is a dictionary, behind a real server on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from waiting import PATIENCE, wait_until

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions.catalog import (
    Catalog,
    CodeReference,
    Entity,
    Field,
    LabelDefinition,
    Model,
    OnDemandInput,
    OnDemandView,
    Projection,
    Service,
    Source,
    SpineDefinition,
    Split,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.result import OnlineResult, Status
from tidemill.project import Project
from tidemill.settings import Settings
from tidemill_serving.app import create_app
from tidemill_serving.protocol import PatientHttpProtocol

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)


@dataclass
class DictionaryStore:
    """Answers `temp` by origin; everything else it computes. `gone` makes it fail, `gate` makes it wait."""

    temperatures: dict[str, float | None] = field(default_factory=lambda: {"JFK": 21.5, "LGA": None, "EWR": 19.0})
    ages: dict[str, int] = field(default_factory=dict)
    gone: bool = False
    gate: Any = None
    reads: list[int] = field(default_factory=list)
    pushed: list[Any] = field(default_factory=list)
    closed: bool = False

    async def aread(self, _service: str, rows: Sequence[Mapping[str, Any]], **_options: bool) -> OnlineResult:
        return await self.aread_features(["weather:temp", "request:hours"], rows)

    async def aread_features(
        self, references: Sequence[str], rows: Sequence[Mapping[str, Any]], **_options: bool
    ) -> OnlineResult:
        if self.gate is not None:
            await self.gate()
        if self.gone:
            raise OnlineStoreUnavailableError("Redis does not answer: connection refused.")
        self.reads.append(len(rows))
        found = [self.temperatures.get(row["origin"]) for row in rows]
        known = [row["origin"] in self.temperatures for row in rows]
        statuses = [
            Status.NOT_FOUND if not there else Status.NULL_VALUE if value is None else Status.PRESENT
            for value, there in zip(found, known, strict=True)
        ]
        values = {"temp": found, "hours": [float(row.get("distance") or 0) / 500 for row in rows]}
        columns = {"temp": statuses, "hours": [Status.PRESENT] * len(rows)}
        ages = [self.ages.get(row["origin"], 0) for row in rows]
        times = {"temp": [1_380_628_800_000_000 if there else None for there in known], "hours": [None] * len(rows)}
        names = tuple(reference.split(":")[1] for reference in references)
        return OnlineResult(
            names=names,
            values={name: values[name] for name in names},
            statuses={name: columns[name] for name in names},
            event_times={name: times[name] for name in names},
            stale={name: [age > 3_600 for age in ages] if name == "temp" else [False] * len(rows) for name in names},
            dtypes=dict.fromkeys(names, ValueType.DOUBLE),
            at=to_micros(NOW),
        )

    def ping(self) -> None:
        if self.gone:
            raise OnlineStoreUnavailableError("Redis does not answer: connection refused.")

    async def aclose(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


class ProjectWithDictionary(Project):
    @cached_property
    def online(self) -> Any:  # type: ignore[override]
        return DictionaryStore()


def catalog(**changes: Any) -> Catalog:
    nothing = CodeReference(module="estimators", qualname="make", digest="0" * 64)
    parts: dict[str, Any] = {
        "project": "small",
        "entities": (
            Entity(name="origin", join_key="origin", dtype=ValueType.STRING, description="The airport."),
            Entity(name="route", join_key="route", dtype=ValueType.INT64),
        ),
        "sources": (Source(name="hours", path="data/hours", timestamp_field="time"),),
        "streams": (Stream(name="weather_now", kind="push", source="hours"),),
        "views": (
            View(
                name="weather",
                entities=("origin", "route"),
                join_keys=("origin", "route"),
                features=(Field(name="temp", dtype=ValueType.DOUBLE),),
                source="hours",
                stream="weather_now",
            ),
        ),
        "on_demand_views": (
            OnDemandView(
                name="request",
                features=(Field(name="hours", dtype=ValueType.DOUBLE),),
                function=nothing,
                mode="python",
                inputs=(OnDemandInput(view="weather", feature="temp"),),
                request=(Field(name="distance", dtype=ValueType.DOUBLE),),
            ),
        ),
        "services": (
            Service(
                name="delay_v1",
                projections=(
                    Projection(view="weather", features=("temp",)),
                    Projection(view="request", features=("hours",)),
                ),
            ),
        ),
        "models": (
            Model(
                name="delay",
                service="delay_v1",
                spine=SpineDefinition(
                    source="hours",
                    time_column="time",
                    id_column="flight",
                    keys=(("origin", "origin"), ("route", "route")),
                    request=("distance",),
                ),
                label=LabelDefinition(source="hours", column="late", id_column="flight"),
                estimator=nothing,
                split=Split(test=timedelta(days=1)),
                metrics=("roc_auc",),
            ),
        ),
    }
    return Catalog(**(parts | changes))


def open_small(root: Path, **settings: Any) -> Project:
    (root / "feature_store.yaml").write_text("project: small\n")
    return ProjectWithDictionary(root, settings=Settings(**settings), name="small", clock=ManualClock(NOW))


@contextmanager
def served(project: Project, *, wait: bool = True) -> Iterator[httpx.Client]:
    """The project's application on a free port, with a client for it; `wait` until it is ready."""
    config = uvicorn.Config(
        create_app(project), port=0, http=PatientHttpProtocol, log_level="error", lifespan="on", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            if wait:
                wait_until(lambda: config.app.state.serving.ready)
            client.serving = config.app.state.serving  # type: ignore[attr-defined] - for white-box tests
            yield client
    finally:
        server.should_exit = True
        thread.join()
