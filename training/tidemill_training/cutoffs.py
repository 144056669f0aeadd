"""What the ledger said when a model was trained, kept with the model: runs recorded later must not change its data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Catalog, Model
from tidemill.extract.intervals import history_until
from tidemill.offline.store import OfflineStore

if TYPE_CHECKING:
    from tidemill.materialize.ledger import Ledger
    from tidemill.project import Project

_SCHEMA = {"view": pl.String, "finished_at": pl.Int64, "cutoff": pl.Int64}


@dataclass(frozen=True, kw_only=True)
class RecordedCutoffs:
    """Cut-offs by view as a ledger gives them. `frame` has the columns view, finished_at and cutoff (microseconds)."""

    frame: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger, views: tuple[str, ...], *, until: datetime) -> RecordedCutoffs:
        """The runs of some views that had finished by `until`."""
        parts = [pl.DataFrame(schema=_SCHEMA)]
        for view in views:
            finished, cutoff = ledger.cutoffs(view)
            seen = finished <= to_micros(until)
            found = pl.DataFrame({"finished_at": finished[seen], "cutoff": cutoff[seen]}, schema=_NUMBERS)
            parts.append(found.select(pl.lit(view).alias("view"), "finished_at", "cutoff"))
        return cls(frame=pl.concat(parts))

    def cutoffs(
        self,
        view: str,
        *,
        between: tuple[int, int] | None = None,  # noqa: ARG002 - all of them tell it as well
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Ledger.cutoffs`."""
        found = self.frame.filter(pl.col("view") == view)
        return found["finished_at"].to_numpy(), found["cutoff"].to_numpy()


_NUMBERS = {"finished_at": pl.Int64, "cutoff": pl.Int64}


def record(project: Project, catalog: Catalog, model: Model, *, until: datetime) -> RecordedCutoffs:
    """The cut-offs that decide what a model's vectors held before `until`."""
    views = [catalog.view(name) for name in views_behind(catalog, model.service)]
    scheduled = tuple(view.name for view in views if view.schedule is not None)
    return RecordedCutoffs.of(project.ledger, scheduled, until=until)


def landed_until(project: Project, catalog: Catalog, model: Model, *, until: datetime) -> datetime:
    """`until`, or earlier where extraction has not yet landed everything known before it.

    What lands later would be seen by a reproduction and was not seen by the training. Sources that are not extracted
    by interval are taken to be complete.
    """
    views = [catalog.view(name) for name in views_behind(catalog, model.service)]
    names = {model.spine.source, model.label.source, *(view.source for view in views)}
    reached = (history_until(project.root, catalog.source(name)) for name in names)
    return min([until, *(end for end in reached if end is not None)])


def views_behind(catalog: Catalog, service: str) -> tuple[str, ...]:
    """The views a service reads, those behind its on-demand features included."""
    names: dict[str, None] = {}
    for projection in catalog.service(service).projections:
        if catalog.is_on_demand(projection.view):
            names |= {needed.view: None for needed in catalog.on_demand_view(projection.view).inputs}
        else:
            names[projection.view] = None
    return tuple(names)


def store_with(project: Project, catalog: Catalog, cutoffs: RecordedCutoffs) -> OfflineStore:
    """The offline store as it answers with these definitions and cut-offs."""
    return OfflineStore(root=project.root, catalog=catalog, ledger=cutoffs, settings=project.settings)  # type: ignore[arg-type]
