"""How often a task was tried on a tick: from the ledger, and from a worker's memory of what never came to be a run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tidemill.definitions.catalog import CatchUp
from tidemill.materialize.ledger import CLAIMED, FAILED, Ledger
from tidemill.schedule.due import Due, wait_after
from tidemill.schedule.tasks import Task

_RECENT = 100  # failed runs of a task that are looked through


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How often a task failed in a row on one tick, and when last."""

    count: int
    last: datetime

    def have_rested(self, at: datetime) -> bool:
        """Whether it may be tried again. Where the last failure lies ahead, a clock was."""
        return at >= self.last + wait_after(self.count) or at < self.last


class Tries:
    """One process's knowledge of failures. A run that failed before it could be claimed is only in its memory.

    Workers in several threads may share it: what it remembers is replaced, and never changed in place.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changing = threading.RLock()
        self._failures: dict[tuple[str, datetime], Failures] = {}
        self._waiting: dict[str, datetime] = {}

    def failures(self, task: Task, tick: datetime, retried: datetime | None) -> Failures | None:
        """Those on a tick since it was told to be `retried`; None without any."""
        found = self._failures.get((task.name, tick))
        if found is not None and retried is not None and found.last <= retried:
            found = None
        ended = [
            (run.finished_at, 1 + run.takeovers)
            for run in self._ledger.runs(task.name, state=FAILED, limit=_RECENT)
            if run.end == tick and run.finished_at is not None and (retried is None or run.finished_at > retried)
        ]
        if not ended:
            return found
        count = max(sum(tries for _, tries in ended), found.count if found else 0)
        return Failures(count=count, last=max([*(last for last, _ in ended), *([found.last] if found else [])]))

    def last_error(self, task: Task, tick: datetime) -> str | None:
        runs = self._ledger.runs(task.name, state=FAILED, limit=_RECENT)
        return next((run.error for run in runs if run.end == tick), None)

    def begun(self, task: Task) -> datetime | None:
        """The newest tick that was begun in time, or waited for other tasks then, without success so far; asked for
        where missed ticks are skipped, and None elsewhere."""
        if task.schedule.catch_up is not CatchUp.SKIP:
            return None
        ticks = [run.end for state in (CLAIMED, FAILED) for run in self._ledger.runs(task.name, state=state, limit=1)]
        ticks += [tick for name, tick in (*self._failures, *self._waiting.items()) if name == task.name]
        return max(ticks, default=None)

    def remember(self, task: Task, tick: datetime, at: datetime) -> None:
        """Note a failure."""
        with self._changing:
            before = self._failures.get((task.name, tick))
            if task.schedule.catch_up is not CatchUp.ALL:
                self.forget(task)
            failures = Failures(count=1 + (before.count if before else 0), last=at)
            self._failures = self._failures | {(task.name, tick): failures}

    def wait(self, task: Task, due: Sequence[Due]) -> None:
        """Note that these runs, which are due, wait for other tasks."""
        if due:
            with self._changing:
                self._waiting = self._waiting | {task.name: due[-1].tick}

    def forget(self, task: Task) -> None:
        with self._changing:
            self._failures = {key: failures for key, failures in self._failures.items() if key[0] != task.name}
