"""What a worker would do at an instant, told without doing it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from tidemill.errors import TidemillError
from tidemill.materialize.run import DRY_RUN, FAILED, RunReport
from tidemill.schedule.due import Due, due_runs
from tidemill.schedule.switches import EVERYTHING, Switches
from tidemill.schedule.tasks import Kind, Task
from tidemill.schedule.worker import Worker

if TYPE_CHECKING:
    from tidemill.project import Project


def would_run(project: Project, at: datetime) -> Iterator[RunReport]:
    """A report for each task that is due and not paused, up to its newest tick; of a view, with the rows it would send.

    What an extraction that is due as well would bring is not there yet, and not counted.
    """
    paused = Switches(project.database, project.name).paused()
    for task in () if EVERYTHING in paused else Worker(project).tasks:
        done = project.ledger.last_end(task.name, by=at)
        due = due_runs(task.schedule, name=task.name, done=done, at=at)
        if not due or task.name in paused:
            continue
        if task.kind is Kind.MATERIALIZE:
            yield from _counted(project, task, due[-1], at)
        else:
            yield RunReport(view=task.name, start=due[0].start, end=due[-1].tick, state=DRY_RUN)


def _counted(project: Project, task: Task, due: Due, at: datetime) -> list[RunReport]:
    """What a view's run would send; why it would fail as things are, without keeping back what is said of others."""
    try:
        return project.materializer.materialize(until=due.tick, at=at, views=[task.subject], dry_run=True)
    except TidemillError as error:
        return [RunReport(view=task.name, start=due.start, end=due.tick, state=FAILED, error=str(error))]
