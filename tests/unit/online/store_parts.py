"""Definitions and rows for the tests of reading and writing plain views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from tidemill.definitions import (
    Catalog,
    Entity,
    Feature,
    OnDemandView,
    Projection,
    Service,
    ValueType,
    View,
)

T0 = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def feature(name: str, dtype: ValueType = ValueType.DOUBLE) -> Feature:
    return Feature(name=name, dtype=dtype)


def view(name: str, *features: Feature, entities: tuple[str, ...] = ("origin",), **more: Any) -> View:
    keys = {"origin": "origin", "plane": "tail"}
    return View(
        name=name,
        entities=entities,
        join_keys=tuple(keys[entity] for entity in entities),
        features=features,
        source="s",
        **more,
    )


def catalog(*views: View, on_demand: tuple[OnDemandView, ...] = (), services: tuple[Service, ...] = ()) -> Catalog:
    return Catalog(
        project="prod",
        entities=(
            Entity(name="origin", join_key="origin", dtype=ValueType.STRING),
            Entity(name="plane", join_key="tail", dtype=ValueType.INT64),
        ),
        views=views,
        on_demand_views=on_demand,
        services=services
        or (
            Service(
                name="all",
                projections=tuple(Projection(view=v.name, features=tuple(f.name for f in v.features)) for v in views),
            ),
        ),
    )


def rows(*items: dict[str, Any], event: datetime = T0, known: datetime | None = None, **types: Any) -> pl.DataFrame:
    frame = pl.DataFrame(items, schema_overrides=types, infer_schema_length=None)
    times = [pl.lit(event).alias("__event_time"), pl.lit(known or event).alias("__known_time")]
    return frame.with_columns(pl.col(pl.Null).cast(pl.Float64)).with_columns(
        [time.cast(pl.Datetime("us", "UTC")) for time in times]
    )


WEATHER = view("weather", feature("temp"), feature("wind", ValueType.INT64))
