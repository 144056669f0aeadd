"""How far a run can see: no further than the extraction of its source has come.

What became known after that is not in the offline store yet. A run that claimed to have seen it would have it taken
for late data, and the next run would pass over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidemill.errors import SourceError
from tidemill.extract.declare import extracted_sources
from tidemill.extract.intervals import history_until

if TYPE_CHECKING:
    from tidemill.definitions.catalog import View
    from tidemill.project import Project

_JUST = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a view's runs have come: the latest `end` that is done, and the `cutoff` up to which all is loaded."""

    end: datetime | None
    cutoff: datetime | None

    def has_done(self, until: datetime) -> bool:
        """Whether a run up to there would repeat one."""
        return self.end is not None and until <= self.end

    def has_seen(self, cutoff: datetime) -> bool:
        return self.cutoff is not None and cutoff <= self.cutoff


def reached(project: Project, view: View, at: datetime) -> Reached:
    """How far it is by the ledger, `at` now."""
    ledger = project.ledger
    return Reached(end=ledger.last_end(view.name, by=at), cutoff=ledger.last_cutoff(view.name, by=at))


def seen_until(project: Project, view: View, until: datetime) -> datetime:
    """The cut-off of a run up to `until`: that, or the last instant whose facts the source's extraction has landed.

    A source that the project does not extract by intervals is taken to be complete.
    """
    source = project.catalog.source(view.source)
    reached = history_until(project.root, source)
    if reached is None or source.name not in extracted_sources(project.root):
        return until
    return min(until, reached - _JUST)  # an extraction gives what became known before its end


def never_loaded(project: Project, at: datetime) -> tuple[str, ...]:
    """The views that are kept online and of which no run has loaded what was known before, `at` now.

    They answer with what has been pushed since, or with nothing at all.
    """
    return tuple(
        view.name
        for view in project.catalog.views
        if view.online and project.ledger.last_cutoff(view.name, by=at) is None
    )


def passing_over(project: Project, source: str, since: datetime, *, at: datetime) -> list[str]:
    """The views that have been loaded further than `since` already, and so pass over what lands from there only now.

    Late facts are found by when they became known; what became known before the last cut-off is taken to be loaded.
    """
    views = [view for view in project.catalog.views if view.source == source and view.online and not view.is_pushed]
    cutoffs = {view.name: project.ledger.last_cutoff(view.name, by=at) for view in views}
    return [name for name, cutoff in cutoffs.items() if cutoff is not None and since <= cutoff]


def refuse_empty(project: Project, view: View) -> None:
    """Raise SourceError where nothing has come into a view's source yet.

    A run over nothing would claim to have seen all, and what comes later with older times would be passed over.
    """
    source = project.catalog.source(view.source)
    folder = project.root / source.path
    if "://" not in source.path and not view.is_pushed and folder.is_dir() and next(folder.iterdir(), None) is None:
        raise SourceError(
            f"Source {source.name!r} is empty: there is no file in {folder} yet.",
            hint="Run `tidemill extract`, or put its first file there, and materialize again.",
        )
