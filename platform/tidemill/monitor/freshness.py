"""How old what is served is, view by view, and whether scheduled runs keep up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.clock import as_utc, to_micros
from tidemill.definitions.duration import format_duration
from tidemill.errors import SourceError
from tidemill.schedule.ticks import newest_tick

if TYPE_CHECKING:
    from tidemill.definitions.catalog import View
    from tidemill.project import Project

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """One view at one instant.

    `cutoff` is what the online store holds everything up to (None before the first run, and for views that only live
    from pushes); `ran` the end of the latest interval that is done, which is later where extraction had not come as
    far; `due` the newest tick whose run should have finished. `newest_event` is the newest event in the
    source that was known by then, `age` how long ago it happened and `max_age` the objective.
    """

    view: str
    kind: str
    cutoff: datetime | None
    ran: datetime | None
    due: datetime | None
    newest_event: datetime | None
    age: timedelta | None
    max_age: timedelta | None

    @property
    def is_late(self) -> bool:
        """A run that should have finished has not."""
        return self.due is not None and (self.ran is None or self.ran < self.due)

    @property
    def is_stale(self) -> bool:
        """The newest value is older than the view's objective."""
        return self.max_age is not None and (self.age is None or self.age > self.max_age)

    def to_dict(self) -> dict[str, Any]:
        return {
            "view": self.view,
            "kind": self.kind,
            "cutoff": None if self.cutoff is None else self.cutoff.isoformat(),
            "due": None if self.due is None else self.due.isoformat(),
            "newest_event": None if self.newest_event is None else self.newest_event.isoformat(),
            "age_seconds": None if self.age is None else self.age.total_seconds(),
            "max_age": None if self.max_age is None else format_duration(self.max_age),
            "late": self.is_late,
            "stale": self.is_stale,
        }


def freshness(project: Project, *, at: datetime) -> tuple[Freshness, ...]:
    """Every view that is kept online, in the catalog's order."""
    return tuple(_of_view(project, view, as_utc(at)) for view in project.catalog.views if view.online)


def _of_view(project: Project, view: View, at: datetime) -> Freshness:
    cutoff = project.ledger.last_cutoff(view.name, by=at)
    seen = at if view.is_pushed or cutoff is None else min(cutoff, at)
    event = _newest_event(project, view, seen)
    return Freshness(
        view=view.name,
        kind="pushed" if view.is_pushed else "scheduled" if view.schedule else "on request",
        cutoff=cutoff,
        ran=project.ledger.last_end(view.name, by=at),
        due=newest_tick(view.schedule, at) if view.schedule else None,
        newest_event=event,
        age=None if event is None else at - event,
        max_age=view.freshness.max_age if view.freshness else None,
    )


def _newest_event(project: Project, view: View, seen: datetime) -> datetime | None:
    source = project.catalog.source(view.source)
    event, known = pl.col(source.event_column), pl.col(source.known_column)
    inside = (event <= seen) & (known.is_null() | (known <= seen))
    try:
        newest = project.offline.scan(view.source).filter(inside).select(event.max().dt.epoch("us")).collect().item()
    except SourceError:
        return None  # nothing has landed yet
    return None if newest is None else _EPOCH + timedelta(microseconds=min(newest, to_micros(seen)))
