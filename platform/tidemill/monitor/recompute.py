"""Computing again what a service answered: the same definitions, the offline store, the cut-offs of that moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, Field, OnDemandView, Projection, View
from tidemill.definitions.on_demand import evaluate, gather_inputs, input_types
from tidemill.definitions.series import declared_series
from tidemill.monitor.served import comparable, served_column
from tidemill.schedule.ticks import NEVER

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

EVENT_TIME = "__event_time"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Logged rows of one service under one catalog: request times (int64 microseconds), keys and request as objects."""

    at: np.ndarray
    keys: Sequence[Mapping[str, Any]]
    request: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, kw_only=True)
class ViewValues:
    """A view's features for each row, with the winner's event time (int64 microseconds, NEVER without one)."""

    values: Mapping[str, pl.Series]
    event_times: np.ndarray


class Recomputation:
    """One catalog's definitions over the offline store. Reads only."""

    def __init__(self, *, store: OfflineStore, catalog: Catalog, root: Path) -> None:
        self.store, self.catalog, self._root = store, catalog, root

    def keys(self, projection: Projection, rows: Rows, places: np.ndarray | None = None) -> pl.DataFrame:
        """The view's join keys in their declared types, for all rows or for the `places` asked."""
        view = self.catalog.view(projection.view)
        names = dict(projection.join_key_map)
        chosen = rows.keys if places is None else [rows.keys[place] for place in places.tolist()]
        columns = [
            served_column([*map(dict, chosen)], Field(name=key, dtype=dtype), name=names.get(key, key)).values
            for key, dtype in zip(view.join_keys, self.catalog.key_types(view), strict=True)
        ]
        return pl.DataFrame(columns)

    def cutoffs(self, view: View, at: np.ndarray) -> np.ndarray:
        return np.asarray(self.store.cutoffs(view.name, at), dtype=np.int64)

    def view(
        self,
        view: View,
        keys: pl.DataFrame,
        features: Sequence[str],
        *,
        at: np.ndarray,
        cutoff: np.ndarray,
        known: np.ndarray | None = None,
    ) -> ViewValues:
        """Some features of a view, for each row as of its cut-off; see `OfflineStore.values_at`."""
        found = self.store.values_at(view.name, keys, at, cutoff, features=list(features), known=known)
        values = {name: comparable(found[name], view.feature(name).dtype) for name in features}
        return ViewValues(values=values, event_times=_micros(found))

    def on_demand(
        self, view: OnDemandView, inputs: Mapping[tuple[str, str], pl.Series], rows: Rows
    ) -> dict[str, pl.Series]:
        """An on-demand view for each row, from its inputs by (view, feature) and the request.

        Raises DefinitionError where its code is no longer the code that was applied, or fails.
        """
        request = {field.name: served_column(rows.request, field).values.to_list() for field in view.request}
        given = gather_inputs(view, {ref: values.to_list() for ref, values in inputs.items()}, request)
        found = evaluate(view, self._root, given, input_types(self.catalog, view))
        return {f.name: comparable(declared_series(f.name, found[f.name], f.dtype), f.dtype) for f in view.features}


def _micros(found: pl.DataFrame) -> np.ndarray:
    if EVENT_TIME not in found.columns:
        return np.full(found.height, NEVER, dtype=np.int64)
    return found[EVENT_TIME].dt.epoch("us").fill_null(NEVER).to_numpy()
