"""A model's training set as it is fitted: features by point in time, outcomes, parts by time, and a digest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, Model
from tidemill.definitions.types import ValueType
from tidemill.models.encoding import check_encodable
from tidemill_training.spine import labelled, spine_of
from tidemill_training.split import Parts, check_outcomes, split_by_time

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

MODE = "served"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Rows in order of request time. `frame` holds the spine's columns, the label and the features.

    `digest` is over the content of `frame`, column by column, so it is the same on every machine.
    """

    model: Model
    frame: pl.DataFrame
    features: tuple[tuple[str, ValueType], ...]
    parts: Parts
    until: datetime
    digest: str

    @property
    def outcomes(self) -> np.ndarray:
        """0 or 1, int8 of shape (rows,)."""
        return self.frame[self.model.label.column].to_numpy()

    @property
    def start(self) -> datetime:
        return self.frame[self.model.spine.time_column][0]

    @property
    def vectors(self) -> pl.DataFrame:
        """The features alone."""
        return self.frame.select(name for name, _ in self.features)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a training set before any feature is computed: a spine with outcomes, in parts."""

    model: Model
    features: tuple[tuple[str, ValueType], ...]
    spine: pl.DataFrame
    parts: Parts
    until: datetime


def find_rows(
    offline: OfflineStore, catalog: Catalog, model: Model, *, start: datetime | None, until: datetime
) -> Rows:
    """The requests in `[start, until)` whose outcome was known before `until`.

    Raises TrainingDataError where nothing can be learned from them.
    """
    features = feature_types(catalog, model.service)
    spine = labelled(spine_of(offline, catalog, model, start, until), model)
    parts = split_by_time(times_of(spine, model), model.split)
    check_outcomes(spine[model.label.column].to_numpy(), parts)
    return Rows(model=model, features=features, spine=spine, parts=parts, until=until)


def add_features(offline: OfflineStore, rows: Rows) -> Dataset:
    """What serving would have answered for each row at its request time."""
    model, types = rows.model, dict(rows.features)
    found = offline.training_set(model.service, rows.spine, mode=MODE, time_column=model.spine.time_column)
    return Dataset(
        model=model,
        frame=found.collect(),
        features=tuple((name, types[name]) for name in found.feature_names),
        parts=rows.parts,
        until=rows.until,
        digest=found.digest,
    )


def feature_types(catalog: Catalog, service: str) -> tuple[tuple[str, ValueType], ...]:
    """Name and type of each feature of a service, in its order.

    Raises NotDefinedError for an unknown name, DefinitionError for a type that no estimator can read.
    """
    found = []
    for projection in catalog.service(service).projections:
        on_demand = catalog.is_on_demand(projection.view)
        view = catalog.on_demand_view(projection.view) if on_demand else catalog.view(projection.view)
        found.extend((name, view.feature(name).dtype) for name in projection.features)
    for name, dtype in found:
        check_encodable(name, dtype)
    return tuple(found)


def times_of(spine: pl.DataFrame, model: Model) -> np.ndarray:
    """Request times as int64 microseconds UTC."""
    return spine[model.spine.time_column].dt.cast_time_unit("us").to_physical().to_numpy()
