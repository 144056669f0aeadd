"""What a worker would do at an instant, told without doing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tidemill.materialize.dry_run import would_write
from tidemill.materialize.report import CURRENT, DRY_RUN, RunReport
from tidemill.schedule.due import Due
from tidemill.schedule.tasks import Kind, Task
from tidemill.schedule.worker import Worker

if TYPE_CHECKING:
    from tidemill.project import Project


def would_run(project: Project, at: datetime) -> Iterator[RunReport]:
    """A report for each run that a worker would make now; of a view, with the rows it would write.

    What an extraction that is due as well would bring is not there yet, and not counted.
    """
    for task, runs in Worker(project).would_do(at):
        yield from _views_runs(project, task, runs, at) if task.kind is Kind.MATERIALIZE else _others_runs(task, runs)


def _views_runs(project: Project, task: Task, runs: Sequence[Due], at: datetime) -> Iterator[RunReport]:
    view, ends = project.catalog.view(task.subject), [due.tick for due in runs]
    return (report for report in would_write(project, view, ends=ends, at=at) if report.state != CURRENT)


def _others_runs(task: Task, runs: Sequence[Due]) -> Iterator[RunReport]:
    return (RunReport(view=task.name, start=due.start, end=due.tick, state=DRY_RUN) for due in runs)
