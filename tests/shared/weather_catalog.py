"""The definitions of a small project that keeps the newest weather of each place."""

from __future__ import annotations

from tidemill.definitions.catalog import Catalog, Entity, Field, Projection, Service, Source, View
from tidemill.definitions.types import ValueType


def weather_catalog(*, path: str, place: ValueType) -> Catalog:
    """`temp` and `wind` by `origin`, a key of type `place`, from the files in `path`; the service `s` has both."""
    features = (Field(name="temp", dtype=ValueType.DOUBLE), Field(name="wind", dtype=ValueType.INT64))
    return Catalog(
        project="flights",
        entities=(Entity(name="origin", join_key="origin", dtype=place),),
        sources=(Source(name="weather", path=path, timestamp_field="at", known_field="known"),),
        views=(View(name="weather", entities=("origin",), join_keys=("origin",), features=features, source="weather"),),
        services=(Service(name="s", projections=(Projection(view="weather", features=("temp", "wind")),)),),
    )
