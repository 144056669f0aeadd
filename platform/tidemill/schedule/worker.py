"""Doing what is due. Any number of workers may run on one ledger: its unique key lets one of them do each interval.

Time is an argument: `run_due(at)` does what is due at that instant and returns, so that a replay lives through a year
in minutes. Only the loop waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from tidemill.clock import as_utc, ended
from tidemill.errors import ConflictError, TidemillError
from tidemill.extract.declare import extracted_sources
from tidemill.extract.intervals import history_until
from tidemill.materialize.lease import kept
from tidemill.materialize.report import FAILED, SUCCEEDED
from tidemill.materialize.run import BACKFILL
from tidemill.schedule.due import Due, due_runs, is_owed
from tidemill.schedule.switches import EVERYTHING, Switches
from tidemill.schedule.tasks import Kind, Task, tasks_of
from tidemill.schedule.ticks import next_tick
from tidemill.schedule.time_limit import time_limit
from tidemill.schedule.tries import Tries

if TYPE_CHECKING:
    from tidemill.project import Project

Retrain = Callable[["Project", str, datetime], Any]
"""Retrain a model if one of its triggers asks for it: (project, model, at). Injected, since training is not ours."""

_log = logging.getLogger("tidemill.schedule")
_LONGEST_SLEEP = 5.0  # seconds, so that a simulated clock, a pause or new definitions are noticed
_SETTLED = timedelta(days=1)  # no answer takes that long, whatever the clocks of servers say


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One run of one task, as `RunReport` says it of a view; `view` is the task's name in the ledger."""

    kind: str
    view: str
    start: datetime | None
    end: datetime
    cutoff: datetime | None
    rows_read: int
    rows_written: int
    rows_skipped: int
    seconds: float
    state: str
    error: str | None = None


class Worker:
    """Runs a project's schedule. One thread uses a worker; several workers may share a ledger.

    `retrain` is called at the ticks of the models' schedules and once a day for their other triggers; without it models
    are left alone. A worker with `only` one kind of task leaves the others to another worker, and waits for them where
    its own build on them. Workers of one process that share their `tries` know what each other's tasks failed at.
    """

    def __init__(
        self, project: Project, *, retrain: Retrain | None = None, only: Kind | None = None, tries: Tries | None = None
    ) -> None:
        self._project, self._retrain, self._only = project, retrain, only
        self._switches = Switches(project.database, project.name)
        self._tasks: tuple[Task, ...] | None = None
        self._done: dict[str, datetime] = {}
        self._tries = tries or Tries(project.ledger)
        self._compact_next = datetime.min.replace(tzinfo=UTC)
        self._looked_at = datetime.min.replace(tzinfo=UTC)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The project's scheduled work, in the order in which it is done at one instant."""
        if self._tasks is None:
            self._tasks = tasks_of(
                self._project.catalog,
                extracted=extracted_sources(self._project.root),
                retrain=self._retrain is not None,
            )
        return self._tasks

    def run_due(self, at: datetime) -> list[TaskReport]:
        """Do everything that is due at an instant, and say what was done; nothing is raised for work that failed.

        A task waits for those it depends on. Raises UnavailableError where the metadata database does not answer.
        """
        return list(self._run_due(as_utc(at), threading.Event()))

    def would_do(self, at: datetime) -> Iterator[tuple[Task, list[Due]]]:
        """What `run_due` would do at an instant, should all of it succeed: the tasks in order, each with its runs."""
        at = as_utc(at)
        paused, retried = self._switches.paused(), self._switches.retried_at()
        going: set[str] = set()
        for task in () if EVERYTHING in paused else self.tasks:
            if task.name in paused or not going.issuperset(self._held_up_by(task, at)):
                continue
            runs = list(self._to_try(task, at, retried.get(task.name)))
            if runs:
                going.add(task.name)
                yield task, runs

    def run(self, stop: threading.Event, *, on_report: Callable[[TaskReport], None] | None = None) -> None:
        """Do what is due whenever it is, until `stop` is set. New definitions are taken up by themselves."""
        while not stop.is_set():
            try:
                if self._project.reload():
                    self._tasks = None
                    self._done.clear()  # what is defined anew is to be loaded again
                for report in self._run_due(as_utc(self._project.clock.now()), stop):
                    if on_report is not None:
                        on_report(report)
                self._compact_predictions(self._project.clock.now())
                pause = self._seconds_to_next(self._project.clock.now())
            except TidemillError as error:
                _log.warning("The schedule waits: %s", error, extra={"action": "schedule.wait"})
                pause = _LONGEST_SLEEP
            except Exception:  # noqa: BLE001 - whatever it is, the schedule must outlive it
                _log.exception("The schedule waits.", extra={"action": "schedule.wait"})
                pause = _LONGEST_SLEEP
            stop.wait(pause)

    def given_up(self, at: datetime) -> list[TaskReport]:
        """The dead letters: tasks whose newest run failed as often as it may be tried, with the last error."""
        retried = self._switches.retried_at()
        found = []
        for task in self.tasks:
            for due in self._due(task, as_utc(at))[-1:]:
                failures = self._tries.failures(task, due.tick, retried.get(task.name))
                if failures is not None and failures.count >= task.schedule.attempts:
                    found.append(_report(task, due, state="given up", error=self._tries.last_error(task, due.tick)))
        return found

    def waiting(self, at: datetime) -> dict[str, tuple[str, ...]]:
        """The tasks that are due and wait for others to be done first, with those."""
        at = as_utc(at)
        due = [task for task in self.tasks if self._due(task, at)]
        found = {task.name: tuple(self._held_up_by(task, at)) for task in due}
        return {name: others for name, others in found.items() if others}

    def _run_due(self, at: datetime, stop: threading.Event) -> Iterator[TaskReport]:
        """What is done of all that is due, as it is done; once told to `stop`, nothing more is begun."""
        self._notice_clock_set_back(at)
        candidates = [task for task in self.tasks if self._is_ours(task) and self._may_be_due(task, at)]
        if not candidates:
            return
        paused = self._switches.paused()
        if EVERYTHING in paused:
            return
        retried = self._switches.retried_at()
        for task in candidates:
            if stop.is_set():
                return
            if task.name in paused:
                continue
            if next(self._held_up_by(task, at), None) is None:
                yield from self._run_task(task, at, retried.get(task.name), stop)
            else:
                self._tries.wait(task, self._due(task, at))

    def _is_ours(self, task: Task) -> bool:
        return self._only is None or task.kind is self._only

    def _notice_clock_set_back(self, at: datetime) -> None:
        """What was done by a clock that was ahead may be due again: the ledger knows."""
        if at < self._looked_at:
            self._done.clear()
        self._looked_at = at

    def _may_be_due(self, task: Task, at: datetime) -> bool:
        """Whether a tick has passed since this worker last saw the task done; costs no query."""
        done = self._done.get(task.name)
        if done is None:
            return True
        upcoming = next_tick(task.schedule, done)
        return upcoming is not None and upcoming <= at

    def _held_up_by(self, task: Task, at: datetime) -> Iterator[str]:
        """The tasks that this one depends on and that are not done up to now."""
        return (other.name for other in self.tasks if other.name in task.after and self._is_owed(other, at))

    def _is_owed(self, task: Task, at: datetime) -> bool:
        return is_owed(task.schedule, done=self._done_up_to(task.name, at), at=at, begun=self._tries.begun(task))

    def _due(self, task: Task, at: datetime) -> list[Due]:
        done = self._done_up_to(task.name, at)
        return due_runs(task.schedule, name=task.name, done=done, at=at, begun=self._tries.begun(task))

    def _done_up_to(self, name: str, at: datetime) -> datetime | None:
        done = self._project.ledger.last_end(name, by=at)
        if done is not None:
            self._done[name] = done
        return done

    def _run_task(
        self, task: Task, at: datetime, retried: datetime | None, stop: threading.Event
    ) -> Iterator[TaskReport]:
        """The task's due runs in order, up to the first that is not done: later ones build on it."""
        yield from self._end_hopeless(task, at, retried)
        for due in self._to_try(task, at, retried):
            made = self._attempt(task, due, at)
            is_done = bool(made) and all(report.state == SUCCEEDED for report in made)
            if is_done:
                self._done[task.name] = due.tick
                self._tries.forget(task)
            yield from made
            if not is_done or stop.is_set():
                return

    def _to_try(self, task: Task, at: datetime, retried: datetime | None) -> Iterator[Due]:
        """The due runs up to the first that has to wait; one that was given up leaves its interval to the next."""
        left: datetime | None = None
        for due in self._due(task, at):
            failures = self._tries.failures(task, due.tick, retried)
            start, left = left or due.start, None
            if failures is not None and failures.count >= task.schedule.attempts:
                left = start
            elif failures is None or failures.have_rested(at):
                yield Due(start=start, tick=due.tick)
            else:
                return

    def _end_hopeless(self, task: Task, at: datetime, retried: datetime | None) -> list[TaskReport]:
        """Runs that ended their workers as often as they may be tried: the next worker would die of them too."""
        reports: list[TaskReport] = []
        for run in self._project.ledger.unfinished(task.name, at=at):
            failures = self._tries.failures(task, run.end, retried)
            tried = 1 + run.takeovers + (failures.count if failures else 0)
            if run.kind == BACKFILL or tried < task.schedule.attempts:
                continue
            error = _died_of(task, tried)
            if self._project.ledger.give_up(run, error=error, at=at):
                due = Due(start=run.start or run.end, tick=run.end)
                reports.append(_report(task, due, state=FAILED, error=error))
        return reports

    def _attempt(self, task: Task, due: Due, at: datetime) -> list[TaskReport]:
        began = perf_counter()
        work = {Kind.EXTRACT: self._extract, Kind.MATERIALIZE: self._materialize, Kind.RETRAIN: self._fit_again}
        try:
            with time_limit(task.schedule.timeout):
                reports = work[task.kind](task, due, at)
        except ConflictError:
            return []  # another worker is at it
        except Exception as error:  # noqa: BLE001 - one task's failure must not stop the others
            if not isinstance(error, TidemillError):
                _log.exception("%s failed.", task.name, extra={"action": "schedule.failed", "task": task.name})
            reports = [_report(task, due, state=FAILED, error=_in_words(error), seconds=perf_counter() - began)]
        if any(report.state == FAILED for report in reports):
            self._tries.remember(task, due.tick, at)
        return reports

    def _materialize(self, task: Task, due: Due, at: datetime) -> list[TaskReport]:
        runs = self._project.materializer.materialize(until=due.tick, views=[task.subject], at=at, kind="scheduled")
        return [
            TaskReport(
                kind=task.kind,
                view=run.view,
                start=run.start,
                end=run.end,
                cutoff=run.cutoff,
                rows_read=run.rows_read,
                rows_written=run.rows_written,
                rows_skipped=run.rows_skipped,
                seconds=run.seconds,
                state=run.state,
                error=run.error,
            )
            for run in runs
            if run.state in (SUCCEEDED, FAILED)  # else another worker has it, or had it a moment ago
        ]

    def _extract(self, task: Task, due: Due, at: datetime) -> list[TaskReport]:
        from tidemill.extract import extract

        def work() -> tuple[int, int]:
            start = self._where_history_ends(task, due)
            (report,) = extract(self._project, start=start, end=due.tick, sources=[task.subject], at=at)
            if report.quarantined:
                why = ", ".join(f"{reason} ({rows:,})" for reason, rows in report.reasons)
                said = f"{report.quarantined:,} rows of {task.subject!r} are in quarantine: {why}."
                _log.warning(said, extra={"action": "extract.quarantined", "task": task.name})
            return report.rows, report.quarantined

        return self._once(task, due, at, work)

    def _where_history_ends(self, task: Task, due: Due) -> datetime:
        """Where an extraction begins: the first by schedule goes on where one by hand has ended, however long ago."""
        if self._project.ledger.last_end(task.name) is not None:
            return due.start
        reached = history_until(self._project.root, self._project.catalog.source(task.subject))
        return due.start if reached is None else min(due.start, reached)

    def _fit_again(self, task: Task, due: Due, at: datetime) -> list[TaskReport]:
        def work() -> tuple[int, int]:
            if self._retrain is not None:
                self._retrain(self._project, task.subject, at)
            return 0, 0

        return self._once(task, due, at, work)

    def _once(self, task: Task, due: Due, at: datetime, work: Callable[[], tuple[int, int]]) -> list[TaskReport]:
        """Work that keeps no ledger of its own, claimed and ended in ours; nothing where somebody else is at it.

        `work` says how many rows it wrote and how many it left out.
        """
        ledger, began = self._project.ledger, monotonic()
        claim = ledger.claim(
            task.name,
            start=due.start,
            end=due.tick,
            at=at,
            kind=task.kind,
            catalog_digest=self._project.catalog.digest,
        )
        if claim is None:
            return []
        try:
            with kept(ledger, claim, at=at):
                written, left_out = work()
        except ConflictError:
            ledger.withdraw(claim)  # as when `tidemill extract` is at it by hand: no failure of this task
            raise
        except BaseException as error:
            ledger.fail(claim, error=_in_words(error), at=ended(self._project.clock, at, began))
            raise
        finished = ended(self._project.clock, at, began)
        counts = {"rows_read": written + left_out, "rows_written": written, "rows_skipped": left_out}
        ledger.succeed(claim, cutoff=due.tick, **counts, at=finished)
        return [replace(_report(task, due, state=SUCCEEDED, seconds=monotonic() - began), **counts)]

    def _compact_predictions(self, now: datetime) -> None:
        """Once an hour, the log of hours so long ago that nobody is still answering in them."""
        if self._only is not None or now < self._compact_next:
            return
        self._compact_next = now + timedelta(hours=1)
        try:
            self._project.predictions.compact(before=now - _SETTLED)
        except TidemillError as error:
            _log.warning("%s", error, extra={"action": "predictions.compact"})

    def _seconds_to_next(self, now: datetime) -> float:
        upcoming = [tick for task in self.tasks if (tick := next_tick(task.schedule, now)) is not None]
        if not upcoming:
            return _LONGEST_SLEEP
        return min(max((min(upcoming) - now).total_seconds(), 0.05), _LONGEST_SLEEP)


def _report(task: Task, due: Due, *, state: str, seconds: float = 0.0, error: str | None = None) -> TaskReport:
    return TaskReport(
        kind=task.kind,
        view=task.name,
        start=due.start,
        end=due.tick,
        cutoff=due.tick if state == SUCCEEDED else None,
        rows_read=0,
        rows_written=0,
        rows_skipped=0,
        seconds=seconds,
        state=state,
        error=error,
    )


def _died_of(task: Task, tried: int) -> str:
    times = "once" if tried == 1 else f"{tried} times in a row"
    return (
        f"Its worker ended before it did, {times} and without coming further; it is not tried again. Find out what "
        "ends it: the system for its memory (set `memory_limit`), or whoever starts the worker, after a time. Then "
        f"`tidemill schedule retry {task.name}`."
    )


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
