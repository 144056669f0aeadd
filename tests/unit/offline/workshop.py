"""A small project for tests: sources written as Parquet, views over them, and an offline store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.definitions.catalog import (
    Catalog,
    Entity,
    Feature,
    OnDemandView,
    Projection,
    Schedule,
    Service,
    Source,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType
from tidemill.offline.store import OfflineStore

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
MICROS = pl.Datetime("us", "UTC")
HOUR = 3_600_000_000
"""In microseconds."""


def at(hours: float) -> datetime:
    """An instant some hours after the tests' first."""
    return EPOCH + timedelta(hours=hours)


def ask(*rows: tuple, **columns) -> pl.DataFrame:
    """A spine of (id, time) rows with further columns."""
    base = {"id": [row[0] for row in rows], "event_timestamp": [row[1] for row in rows]}
    return pl.DataFrame({**base, **columns}, schema_overrides={"id": pl.Int64, "event_timestamp": MICROS})


class Workshop:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.entities: dict[str, Entity] = {}
        self.sources: list[Source] = []
        self.streams: list[Stream] = []
        self.views: list[View] = []
        self.on_demand: list[OnDemandView] = []
        self.services: list[Service] = []
        self.ledger: Any = None

    def source(self, name: str, rows: Mapping[str, Any] | pl.DataFrame | None = None, **options: Any) -> Source:
        """A source with event times in `event`, known times in `known` where there is such a column."""
        path = options.pop("path", f"{name}.parquet")
        if rows is not None:
            frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
            if "known" in frame.columns:
                options.setdefault("known_field", "known")
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(self.root / path, row_group_size=options.pop("row_group_size", None))
        options.setdefault("timestamp_field", "event")
        made = Source(name=name, path=path, **options)
        self.sources.append(made)
        return made

    def view(
        self,
        name: str,
        source: Source | str,
        features: Mapping[str, ValueType],
        *,
        keys: Mapping[str, ValueType] | None = None,
        **options: Any,
    ) -> View:
        """A view keyed by `keys` (by default an int64 `id`)."""
        keys = {"id": ValueType.INT64} if keys is None else keys
        for key, dtype in keys.items():
            self.entities[key] = Entity(name=key, join_key=key, dtype=dtype)
        schedule = options.get("schedule")
        if isinstance(schedule, str):
            options["schedule"] = Schedule(cron=schedule)
        made = View(
            name=name,
            entities=tuple(keys),
            join_keys=tuple(keys),
            features=tuple(Feature(name=feature, dtype=dtype) for feature, dtype in features.items()),
            source=source if isinstance(source, str) else source.name,
            **options,
        )
        self.views.append(made)
        return made

    def service(self, name: str, *projections: Projection) -> Service:
        made = Service(name=name, projections=projections)
        self.services.append(made)
        return made

    @property
    def catalog(self) -> Catalog:
        return Catalog(
            project="workshop",
            entities=tuple(self.entities.values()),
            sources=tuple(self.sources),
            streams=tuple(self.streams),
            views=tuple(self.views),
            on_demand_views=tuple(self.on_demand),
            services=tuple(self.services),
        )

    @property
    def store(self) -> OfflineStore:
        return OfflineStore(root=self.root, catalog=self.catalog, ledger=self.ledger)

    def collect(
        self, features: str | Sequence[str], spine: Any, *, mode: str = "event", **options: Any
    ) -> pl.DataFrame:
        return self.store.training_set(features, spine, mode=mode, **options).collect()

    def simple(self, rows: Mapping[str, Any] | pl.DataFrame, **options: Any) -> Workshop:
        """One view `v` keyed by `id` with an int64 feature `x` over a source of these rows."""
        self.view("v", self.source("s", rows), {"x": ValueType.INT64}, **options)
        return self
