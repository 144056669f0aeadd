"""Pausing and resuming scheduled work, and trying again what was given up. Kept in the metadata database, so that every
worker obeys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tidemill.metadata.database import Database
from tidemill.metadata.reports import ReportRepository, StoredReport

EVERYTHING = "*"
_PAUSE, _RETRY = "pause", "retry"


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A task that is paused, or `*` for all of them; since when, and why."""

    task: str
    since: datetime
    reason: str


class Switches:
    """Which tasks of a project are paused. Tasks are named as in the ledger; `*` stands for all of them."""

    def __init__(self, database: Database, project: str) -> None:
        self._reports = ReportRepository(database, project)

    def pause(self, task: str, *, reason: str = "", at: datetime) -> None:
        """Start nothing more of this task. What is running ends by itself."""
        self._reports.add(_PAUSE, task, {"paused": True, "reason": reason}, at=at)

    def resume(self, task: str, *, at: datetime) -> None:
        """Start again at the next tick, missed ones as the schedule says."""
        self._reports.add(_PAUSE, task, {"paused": False, "reason": ""}, at=at)

    def retry(self, task: str, *, at: datetime) -> None:
        """Forget the failures so far, so that what was given up is tried again."""
        self._reports.add(_RETRY, task, {}, at=at)

    def paused(self) -> dict[str, Pause]:
        """What is paused now, by task."""
        newest = _newest_by_subject(self._reports.list(_PAUSE, limit=10_000))
        return {
            task: Pause(task=task, since=report.made_at, reason=report.body["reason"])
            for task, report in newest.items()
            if report.body["paused"]
        }

    def is_everything_paused(self) -> bool:
        return EVERYTHING in self.paused()

    def retried_at(self) -> dict[str, datetime]:
        """Since when failures count, for each task that was ever told to try again."""
        newest = _newest_by_subject(self._reports.list(_RETRY, limit=10_000))
        return {task: report.made_at for task, report in newest.items()}


def _newest_by_subject(reports: list[StoredReport]) -> dict[str, StoredReport]:
    """What was said last of each task, in the order in which it was said: the clock may have been set back since."""
    return {report.subject: report for report in sorted(reports, key=lambda report: report.id)}
