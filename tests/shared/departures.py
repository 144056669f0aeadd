"""A stream of departures, and views that count them and add up their delays over the last hour."""

from __future__ import annotations

from datetime import timedelta

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType

WINDOW = timedelta(hours=1)


def counted(name: str, key: str) -> View:
    """Features `{name}_count` and `{name}_delay` for each value of the key."""
    wanted = ((f"{name}_count", AggregationFunction.COUNT, ""), (f"{name}_delay", AggregationFunction.SUM, "delay"))
    return View(
        name=name, entities=(key,), join_keys=(key,), source="departures", stream="departed", event_id="id",
        features=tuple(Field(name=feature, dtype=ValueType.INT64) for feature, _, _ in wanted),
        aggregations=tuple(
            Aggregation(name=feature, function=function, column=column, window=WINDOW, hop=timedelta(minutes=5))
            for feature, function, column in wanted
        ),
    )  # fmt: skip


def departures(project: str) -> Catalog:
    """Departures with a time `event` and an id `id`, counted by `origin` and by `carrier`."""
    return Catalog(
        project=project,
        entities=tuple(Entity(name=name, join_key=name, dtype=ValueType.STRING) for name in ("origin", "carrier")),
        sources=(Source(name="departures", path="departures", timestamp_field="event"),),
        streams=(Stream(name="departed", kind="push", source="departures"),),
        views=(counted("origins", "origin"), counted("carriers", "carrier")),
    )
