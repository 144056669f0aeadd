"""The ledger: every materialization of every view over every interval, in exactly one row each.

Work is claimed by a unique key, so that two workers never do the same interval. A claim is held for a lease, which its
holder renews; the interval of a holder that died is taken over, with the progress it had saved.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import psutil
from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tidemill.clock import to_micros
from tidemill.errors import ConflictError
from tidemill.metadata.database import Database
from tidemill.metadata.tables import RunRow

LEASE = timedelta(minutes=10)
"""How long a silent worker keeps its interval. A worker known to be dead loses it at once."""

_BEGINNING = -(2**63)
CLAIMED, SUCCEEDED, FAILED = "claimed", "succeeded", "failed"
_IN_LINE = frozenset({"scheduled", "extract", "retrain"})
"""Kinds of work whose intervals follow one another, so that two that begin alike would do the same work twice."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A ledger row as people read it. `start` is None for a run from the beginning of the history."""

    id: int
    view: str
    start: datetime | None
    end: datetime
    attempt: int
    kind: str
    state: str
    cutoff: datetime | None
    claimed_by: str
    lease_until: datetime
    started_at: datetime
    finished_at: datetime | None
    rows_read: int
    rows_written: int
    rows_skipped: int
    progress: str | None
    error: str | None
    catalog_digest: str

    @property
    def seconds(self) -> float | None:
        return None if self.finished_at is None else (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to do one interval. `progress` is what an earlier holder had saved, if there was one."""

    id: int
    view: str
    start: datetime | None
    end: datetime
    by: str
    lease: timedelta
    started_at: datetime
    progress: str | None = None


class Ledger:
    """The runs of one project. Raises UnavailableError while the metadata database does not answer."""

    def __init__(self, database: Database, project: str) -> None:
        self._database, self._project = database, project

    def claim(
        self,
        view: str,
        *,
        start: datetime | None,
        end: datetime,
        at: datetime,
        by: str | None = None,
        lease: timedelta = LEASE,
        kind: str = "manual",
        catalog_digest: str = "",
        again: bool = False,
    ) -> Claim | None:
        """Claim an interval, or None where it is done already (unless `again`) or a living worker holds it.

        A failed interval is claimed again as the next attempt; a dead holder's is taken over as it stands. Scheduled
        work is claimed only where no other interval with the same start is done or held: a worker whose view of the
        ledger is a moment old would do a part of it again.
        """
        holder = by or this_worker()
        interval = (_micros(start), to_micros(end))
        try:
            with self._database.writing() as session:
                attempts = self._attempts(session, view, interval)
                if not again and any(row.state == SUCCEEDED for row in attempts):
                    return None
                held = next((row for row in attempts if row.state == CLAIMED), None)
                if held is not None:
                    return self._take_over(session, held, holder=holder, at=at, lease=lease)
                row = RunRow(
                    project=self._project,
                    view=view,
                    interval_start=interval[0],
                    interval_end=interval[1],
                    attempt=1 + max((row.attempt for row in attempts), default=0),
                    kind=kind,
                    state=CLAIMED,
                    claimed_by=holder,
                    lease_until=to_micros(at + lease),
                    started_at=to_micros(at),
                    catalog_digest=catalog_digest,
                )
                session.add(row)
                session.flush()
                if kind in _IN_LINE and self._began_alike(session, row, at):
                    session.delete(row)
                    return None
                return _claim(row, lease)
        except IntegrityError:
            return None  # another worker's row came first: the unique key decided

    def renew(self, claim: Claim, *, at: datetime) -> None:
        """Keep the claim for another lease. Raises ConflictError if it was taken over meanwhile."""
        self._change(claim, lease_until=to_micros(at + claim.lease))

    def save_progress(self, claim: Claim, progress: str, *, at: datetime) -> None:
        """Note how far the work is, for whoever continues it; renews the claim."""
        self._change(claim, progress=progress, lease_until=to_micros(at + claim.lease))

    def release(self, claim: Claim, *, at: datetime) -> None:
        """Give the claim up with its progress, for anybody to continue."""
        self._change(claim, lease_until=to_micros(at))

    def succeed(
        self,
        claim: Claim,
        *,
        cutoff: datetime | None,
        rows_read: int,
        rows_written: int,
        rows_skipped: int,
        at: datetime,
    ) -> None:
        """The interval is done; `cutoff` is what the online store now holds everything up to, where that is so."""
        self._change(
            claim,
            state=SUCCEEDED,
            cutoff=None if cutoff is None else to_micros(cutoff),
            rows_read=rows_read,
            rows_written=rows_written,
            rows_skipped=rows_skipped,
            finished_at=to_micros(at),
        )

    def fail(self, claim: Claim, *, error: str, at: datetime) -> None:
        """The attempt ended without its work done; the interval may be claimed again."""
        self._change(claim, state=FAILED, error=error, finished_at=to_micros(at))

    def last_cutoff(self, view: str) -> datetime | None:
        """What the online store holds everything up to, or None if no run has succeeded."""
        with self._database.reading() as session:
            newest = session.scalar(select(func.max(RunRow.cutoff)).where(*self._succeeded(view)))
        return None if newest is None else _instant(newest)

    def cutoffs(self, view: str) -> tuple[np.ndarray, np.ndarray]:
        """When runs had finished and what the store held from then on, as int64 microseconds, in order of finishing.

        The cut-off never falls: a backfill of the past takes nothing away.
        """
        with self._database.reading() as session:
            query = select(RunRow.finished_at, RunRow.cutoff).where(*self._succeeded(view))
            rows = session.execute(query.order_by(RunRow.finished_at, RunRow.id)).all()
        finished = np.array([row[0] for row in rows], dtype=np.int64)
        cutoff = np.array([row[1] for row in rows], dtype=np.int64)
        return finished, np.maximum.accumulate(cutoff) if len(cutoff) else cutoff

    def runs(self, view: str | None = None, *, limit: int = 100, state: str | None = None) -> list[Run]:
        """The newest runs first."""
        query = select(RunRow).where(RunRow.project == self._project)
        if view is not None:
            query = query.where(RunRow.view == view)
        if state is not None:
            query = query.where(RunRow.state == state)
        with self._database.reading() as session:
            return [_run(row) for row in session.scalars(query.order_by(RunRow.id.desc()).limit(limit))]

    def unfinished(self, view: str, *, at: datetime, kind: str | None = None) -> list[Run]:
        """Intervals whose holder died or went silent: the work to continue first. Oldest first."""
        query = select(RunRow).where(RunRow.project == self._project, RunRow.view == view, RunRow.state == CLAIMED)
        if kind is not None:
            query = query.where(RunRow.kind == kind)
        with self._database.reading() as session:
            rows = list(session.scalars(query.order_by(RunRow.id)))
        return [_run(row) for row in rows if _is_free(row, at)]

    def _attempts(self, session: Session, view: str, interval: tuple[int, int]) -> list[RunRow]:
        query = select(RunRow).where(
            RunRow.project == self._project,
            RunRow.view == view,
            RunRow.interval_start == interval[0],
            RunRow.interval_end == interval[1],
        )
        return list(session.scalars(query))

    def _began_alike(self, session: Session, row: RunRow, at: datetime) -> bool:
        """Whether another interval with this one's start is done, or held by a living worker."""
        query = select(RunRow).where(
            RunRow.project == self._project,
            RunRow.view == row.view,
            RunRow.kind == row.kind,
            RunRow.interval_start == row.interval_start,
            RunRow.interval_end != row.interval_end,
            RunRow.state.in_((CLAIMED, SUCCEEDED)),
        )
        return any(other.state == SUCCEEDED or not _is_free(other, at) for other in session.scalars(query))

    def _take_over(self, session: Session, row: RunRow, *, holder: str, at: datetime, lease: timedelta) -> Claim | None:
        """Take a dead holder's claim, unless somebody was quicker: the old holder and lease must still stand."""
        if not _is_free(row, at):
            return None
        changed = session.execute(
            update(RunRow)
            .where(
                RunRow.id == row.id,
                RunRow.state == CLAIMED,
                RunRow.claimed_by == row.claimed_by,
                RunRow.lease_until == row.lease_until,
            )
            .values(claimed_by=holder, lease_until=to_micros(at + lease))
            .execution_options(synchronize_session=False)
        )
        if _count(changed) == 0:
            return None
        claim = _claim(row, lease)
        return Claim(**{**vars(claim), "by": holder})

    def _change(self, claim: Claim, **values: object) -> None:
        with self._database.writing() as session:
            changed = session.execute(_held(claim).values(**values))
        if _count(changed) == 0:
            raise ConflictError(
                f"The run of {claim.view!r} up to {claim.end.isoformat()} was taken over by another worker.",
                hint="Nothing is lost: that worker ends it. Give the runs a longer lease if this worker was only slow.",
            )

    def _succeeded(self, view: str) -> tuple:
        return (
            RunRow.project == self._project,
            RunRow.view == view,
            RunRow.state == SUCCEEDED,
            RunRow.cutoff.is_not(None),
        )


@lru_cache(maxsize=1)
def _identity(pid: int) -> str:
    """Host, process namespace, process and its start: enough to tell later whether that very process still lives."""
    return f"{_machine()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def this_worker() -> str:
    """A name for this process that no other process has had."""
    return _identity(os.getpid())


def _machine() -> str:
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a namespace is not a path
    except OSError:
        namespace = 0
    return f"{socket.gethostname()}/{namespace}"


def _is_free(row: RunRow, at: datetime) -> bool:
    return row.lease_until <= to_micros(at) or _is_dead(row.claimed_by)


def _is_dead(worker: str) -> bool:
    """True only for a process of this machine that is certainly gone."""
    parts = worker.rsplit(":", 2)
    if len(parts) != 3 or parts[0] != _machine():
        return False
    try:
        process = psutil.Process(int(parts[1]))
        return f"{process.create_time():.2f}" != parts[2] or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.AccessDenied):
        return False


def _held(claim: Claim) -> Update:
    return (
        update(RunRow)
        .where(RunRow.id == claim.id, RunRow.state == CLAIMED, RunRow.claimed_by == claim.by)
        .execution_options(synchronize_session=False)
    )


def _count(result: object) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0


def _claim(row: RunRow, lease: timedelta) -> Claim:
    return Claim(
        id=row.id,
        view=row.view,
        start=_instant_or_none(row.interval_start),
        end=_instant(row.interval_end),
        by=row.claimed_by,
        lease=lease,
        started_at=_instant(row.started_at),
        progress=row.progress,
    )


def _run(row: RunRow) -> Run:
    return Run(
        id=row.id,
        view=row.view,
        start=_instant_or_none(row.interval_start),
        end=_instant(row.interval_end),
        attempt=row.attempt,
        kind=row.kind,
        state=row.state,
        cutoff=None if row.cutoff is None else _instant(row.cutoff),
        claimed_by=row.claimed_by,
        lease_until=_instant(row.lease_until),
        started_at=_instant(row.started_at),
        finished_at=None if row.finished_at is None else _instant(row.finished_at),
        rows_read=row.rows_read,
        rows_written=row.rows_written,
        rows_skipped=row.rows_skipped,
        progress=row.progress,
        error=row.error,
        catalog_digest=row.catalog_digest,
    )


def _micros(at: datetime | None) -> int:
    return _BEGINNING if at is None else to_micros(at)


def _instant_or_none(micros: int) -> datetime | None:
    return None if micros == _BEGINNING else _instant(micros)


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
