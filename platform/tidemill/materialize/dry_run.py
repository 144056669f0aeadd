"""What runs would do, told without doing it: the rows are found as a run finds them, and compared in Redis as a run
compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tidemill.clock import to_micros
from tidemill.definitions.catalog import View
from tidemill.errors import TidemillError
from tidemill.materialize.chunks import chunks_of
from tidemill.materialize.reach import Reached, reached, refuse_empty, seen_until
from tidemill.materialize.report import CURRENT, DRY_RUN, FAILED, RunReport
from tidemill.online.writer import would_write as compared

if TYPE_CHECKING:
    from tidemill.project import Project


def would_write(project: Project, view: View, *, ends: Sequence[datetime], at: datetime) -> Iterator[RunReport]:
    """A report for each run of a view up to one of these instants, one after the other, as if they were made `at` now.

    `failed` is one that would fail as things are, and the last. Every row is compared with what is stored now: where
    a memory limit cuts a run into pieces, a late row that the piece before it would have outdone is counted as written.
    Windows that a stream keeps current are only said to be built; their tiles are not counted.
    """
    now: Reached | None = None
    for until in ends:
        try:
            now = now or reached(project, view, at)
            report = _next_run(project, view, now, until)
        except TidemillError as error:
            yield RunReport(view=view.name, start=None, end=until, state=FAILED, error=str(error))
            return
        yield report
        if report.state == DRY_RUN:
            now = Reached(end=until, cutoff=report.cutoff)


def _next_run(project: Project, view: View, now: Reached, until: datetime) -> RunReport:
    current = RunReport(view=view.name, start=now.cutoff, end=until, state=CURRENT, cutoff=now.cutoff)
    if view.is_windowed and view.is_pushed:
        return replace(current, state=DRY_RUN, cutoff=until) if now.cutoff is None else current
    seen = seen_until(project, view, until)
    if now.has_done(until) and now.has_seen(seen):
        return current
    refuse_empty(project, view)
    cutoff = seen if now.cutoff is None else max(seen, now.cutoff)
    return _counted(project, view, start=now.cutoff, end=until, cutoff=cutoff)


def _counted(project: Project, view: View, *, start: datetime | None, end: datetime, cutoff: datetime) -> RunReport:
    """What a run would do, found in the same pieces, so that counting takes no more memory than running."""
    report = RunReport(view=view.name, start=start, end=end, state=DRY_RUN, cutoff=cutoff)
    online, offline, limit = project.online, project.offline, project.settings.memory_limit
    for chunk in chunks_of(offline, view, start, cutoff, limit=limit):
        for share in range(chunk.shares):
            part = (share, chunk.shares) if chunk.shares > 1 else None
            found = offline.latest_rows(view.name, start=start, end=chunk.end, known_after=start, share=part)
            result = compared(
                online.resp, online.catalog, view, found.frame, learned=to_micros(end), layout=online.layout
            )
            report = report.with_part(found, result)
        start = chunk.end
    return report
