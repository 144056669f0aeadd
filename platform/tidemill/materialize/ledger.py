"""The ledger: every materialization of every view over every interval, in exactly one row each.

Work is claimed by a unique key, so that two workers never do the same interval. A claim is held for a lease, which its
holder renews; the interval of a holder that died is taken over, with the progress it had saved.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, CursorResult, Select, Subquery, Update, delete, func, select, union_all, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tidemill.clock import to_micros
from tidemill.errors import ConflictError, InputError, UnavailableError
from tidemill.materialize.held import (
    FORGOTTEN,
    LEASE,
    SKEW,
    forgotten,
    forgotten_up_to,
    held,
    newest_cutoff,
    newest_end,
)
from tidemill.materialize.holders import is_dead, this_worker
from tidemill.materialize.records import Claim, Run, as_claim, as_run, instant_of, micros_of
from tidemill.metadata.database import Database
from tidemill.metadata.reports import ReportRepository
from tidemill.metadata.tables import RunRow

__all__ = ["LEASE", "Claim", "Ledger", "Run", "this_worker"]

_log = logging.getLogger(__name__)

CLAIMED, SUCCEEDED, FAILED = "claimed", "succeeded", "failed"
_STATES = (CLAIMED, SUCCEEDED, FAILED)
BACKFILL = "backfill"
_IN_LINE = frozenset({"scheduled", "extract", "retrain"})
"""Kinds of work whose intervals follow one another, so that two that begin alike would do the same work twice."""
_DONE_ANEW = frozenset({"extract", "retrain", "rebuild"})
"""Kinds of work that nobody continues: the next run does all of it, so a dead holder's row is ended by then."""


class Ledger:
    """The runs of one project. Raises UnavailableError while the metadata database does not answer.

    How a run ended is never lost to a database that is away at that moment: it is owed, and written before anything
    else as soon as the database answers. Should the process die first, its claim is taken over as a dead worker's.
    """

    def __init__(self, database: Database, project: str) -> None:
        self._database, self._project = database, project
        self._owed: dict[int, tuple[Claim, dict[str, Any]]] = {}

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

        A failed interval is claimed again as the next attempt, which is given the progress of the last one if that was
        made by the same definitions and not forgotten. A dead holder's is taken over as it stands. Scheduled
        work is claimed only where no other interval with the same start is done or held: a worker whose view of the
        ledger is a moment old would do a part of it again.
        """
        self.settle()
        holder = by or this_worker()
        interval = (micros_of(start), to_micros(end))
        try:
            with self._database.writing() as session:
                self._one_at_a_time(session, view)
                attempts = self._attempts(session, view, interval)
                counted_from = forgotten_up_to(session, self._project, view)
                if not again and any(_is_done(row, at, counted_from) for row in attempts):
                    return None
                held = next((row for row in attempts if row.state == CLAIMED), None)
                if held is not None:
                    return self._take_over(
                        session, held, holder=holder, at=at, lease=lease, catalog_digest=catalog_digest
                    )
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
                    progress=_progress_of(attempts, kind, catalog_digest, counted_from),
                    catalog_digest=catalog_digest,
                )
                session.add(row)
                session.flush()
                if kind in _IN_LINE and self._began_alike(session, row, at, counted_from):
                    session.delete(row)
                    return None
                if kind in _DONE_ANEW:
                    self._end_dead(session, row, at)
                return as_claim(row, lease)
        except IntegrityError:
            return None  # another worker's row came first: the unique key decided

    def renew(self, claim: Claim, *, at: datetime) -> None:
        """Keep the claim for another lease. Raises ConflictError if it was taken over meanwhile."""
        self._change(claim, lease_until=to_micros(at + claim.lease))

    def save_progress(self, claim: Claim, progress: str | None, *, at: datetime, further: bool = True) -> None:
        """Note how far the work is, for whoever continues it, or None where that has to begin anew; renews the claim.

        Where it came `further`, the workers that ended at it before are not held against it any longer. A database that
        is away does not stop the work: the next note says all that this one would have said.
        """
        try:
            came = {"takeovers": 0} if further else {}
            self._change(claim, progress=progress, lease_until=to_micros(at + claim.lease), **came)
        except UnavailableError as error:
            _log.warning("Progress could not be noted: %s", error, extra={"action": "progress_failed"})

    def release(self, claim: Claim, *, at: datetime) -> None:
        """Give the claim up with its progress, for anybody to continue."""
        self._end(claim, lease_until=to_micros(at))

    def withdraw(self, claim: Claim) -> None:
        """Take back a claim under which nothing was done, as if it had never been made. One that was lost stays."""
        with self._database.writing() as session:
            session.execute(delete(RunRow).where(*_of(claim)).execution_options(synchronize_session=False))

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
        self._end(
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
        self._end(claim, state=FAILED, error=error, finished_at=to_micros(at))

    def give_up(self, run: Run, *, error: str, at: datetime) -> bool:
        """End an unfinished run whose workers died of it. False where another worker has taken it over by now."""
        with self._database.writing() as session:
            changed = session.execute(
                _still(run.id, run.claimed_by, to_micros(run.lease_until)).values(
                    state=FAILED, error=error, finished_at=to_micros(at)
                )
            )
        return _count(changed) == 1

    def settle(self) -> None:
        """Write the endings that are owed. Raises UnavailableError while the database is still away."""
        for claim, values in list(self._owed.values()):
            try:
                self._change(claim, **values)
            except ConflictError as error:
                _log.warning("%s", error, extra={"action": "claim_lost"})
            self._owed.pop(claim.id, None)

    def forget(self, view: str, *, at: datetime, redefined: bool = False) -> None:
        """What the online store holds of a view is gone or, where it was `redefined`, of another make: the next run
        loads all of it again.

        The runs stay in the ledger, and what they say about the past stays true.
        """
        stays = redefined or self.is_redefined(view)
        with self._database.reading() as session:
            newest = session.scalar(select(func.max(RunRow.id)).where(RunRow.project == self._project)) or 0
        body = {"up_to": newest, "redefined": stays}
        ReportRepository(self._database, self._project).add(FORGOTTEN, view, body, at=at)

    def is_redefined(self, view: str) -> bool:
        """Whether no run has loaded all of a view since it was defined anew."""
        with self._database.reading() as session:
            redefined = forgotten(session, self._project, view).get("redefined", False)
            return redefined and newest_cutoff(session, self._project, view, by=None) is None

    def last_cutoff(self, view: str, *, by: datetime | None = None) -> datetime | None:
        """What the online store holds everything up to, or None if no run has succeeded.

        Runs of a clock that was ahead saw less than they say. `by` (now) leaves them out: those that began further
        ahead than clocks may differ, and those that began so much later than one that was claimed after them.
        """
        with self._database.reading() as session:
            return newest_cutoff(session, self._project, view, by=by)

    def last_end(self, view: str, *, by: datetime | None = None) -> datetime | None:
        """The end of the latest interval that is done. The cut-off lies before it where a source reached less far."""
        with self._database.reading() as session:
            return newest_end(session, self._project, view, by=by)

    def cutoffs(self, view: str, *, between: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """When runs had finished and what the store held from then on, as int64 microseconds, in order of finishing.

        `between` two instants (microseconds, both included) only those that tell what it held then, which takes as long
        as there are runs between them. The cut-off never falls: a backfill of the past takes nothing away.
        """
        with self._database.reading() as session:
            return held(session, self._project, view, between=between)

    def runs(self, view: str | None = None, *, limit: int = 100, state: str | None = None) -> list[Run]:
        """The newest runs first."""
        states = _STATES if state is None else (state,)
        newest = union_all(*(select(self._newest_in(each, view, limit)) for each in states))
        query = select(RunRow).where(RunRow.id.in_(newest)).order_by(RunRow.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [as_run(row) for row in session.scalars(query)]

    def run(self, number: int) -> Run:
        """One run by its id. Raises InputError where there is none."""
        with self._database.reading() as session:
            row = session.get(RunRow, number)
            if row is None or row.project != self._project:
                raise InputError(f"No run has the id {number}.", hint="`tidemill runs` lists them.")
            return as_run(row)

    def unfinished(self, view: str, *, at: datetime, kind: str | None = None) -> list[Run]:
        """Intervals whose holder died or went silent: the work to continue first. Oldest first."""
        self.settle()
        query = select(RunRow).where(RunRow.project == self._project, RunRow.view == view, RunRow.state == CLAIMED)
        if kind is not None:
            query = query.where(RunRow.kind == kind)
        with self._database.reading() as session:
            rows = list(session.scalars(query.order_by(RunRow.id)))
        return [as_run(row) for row in rows if _is_free(row, at)]

    def newest_from(self, view: str, start: datetime, *, kind: str) -> Run | None:
        """The run of a kind that was claimed last of those whose interval begins at an instant."""
        query = select(RunRow).where(
            RunRow.project == self._project, RunRow.view == view, RunRow.interval_start == micros_of(start)
        )
        with self._database.reading() as session:
            row = session.scalar(query.where(RunRow.kind == kind).order_by(RunRow.id.desc()).limit(1))
            return None if row is None else as_run(row)

    def _attempts(self, session: Session, view: str, interval: tuple[int, int]) -> list[RunRow]:
        query = select(RunRow).where(
            RunRow.project == self._project,
            RunRow.view == view,
            RunRow.interval_start == interval[0],
            RunRow.interval_end == interval[1],
        )
        return list(session.scalars(query))

    def _newest_in(self, state: str, view: str | None, limit: int) -> Subquery:
        """The ids of the newest runs in one state, as the indexes have them: nothing older is read, nothing sorted."""
        query = select(RunRow.id).where(RunRow.project == self._project, RunRow.state == state)
        if view is not None:
            query = query.where(RunRow.view == view)
        return query.order_by(RunRow.id.desc()).limit(limit).subquery()

    def _one_at_a_time(self, session: Session, view: str) -> None:
        """Claims of one view one after the other. SQLite's writers are; PostgreSQL's do not see each other's rows."""
        if session.get_bind().dialect.name == "postgresql":
            name = hashlib.sha256(f"{self._project}/{view}".encode()).digest()
            session.execute(select(func.pg_advisory_xact_lock(int.from_bytes(name[:8], signed=True))))

    def _began_alike(self, session: Session, row: RunRow, at: datetime, counted_from: int) -> bool:
        """Whether another interval with this one's start is done, or held by a living worker."""
        query = self._others_of(row).where(
            RunRow.interval_start == row.interval_start, RunRow.state.in_((CLAIMED, SUCCEEDED))
        )
        return any(
            _is_done(other, at, counted_from) if other.state == SUCCEEDED else not _is_free(other, at)
            for other in session.scalars(query)
        )

    def _end_dead(self, session: Session, row: RunRow, at: datetime) -> None:
        for other in session.scalars(self._others_of(row).where(RunRow.state == CLAIMED)):
            if _is_free(other, at):
                other.state, other.finished_at = FAILED, to_micros(at)
                other.error = (
                    f"Its worker ended before it did; the run up to {instant_of(row.interval_end)} does the work."
                )

    def _others_of(self, row: RunRow) -> Select[RunRow]:
        """Other intervals of the same task."""
        return select(RunRow).where(
            RunRow.project == self._project,
            RunRow.view == row.view,
            RunRow.kind == row.kind,
            RunRow.id != row.id,
            RunRow.interval_end != row.interval_end,
        )

    def _take_over(
        self, session: Session, row: RunRow, *, holder: str, at: datetime, lease: timedelta, catalog_digest: str
    ) -> Claim | None:
        """Take a dead holder's claim, unless somebody was quicker: the old holder and lease must still stand. What was
        done by other definitions is done again."""
        if not _is_free(row, at):
            return None
        progress = row.progress if row.catalog_digest in ("", catalog_digest) else None  # "": nobody said
        taken: dict[str, Any] = {"claimed_by": holder, "catalog_digest": catalog_digest, "progress": progress}
        changed = session.execute(
            _still(row.id, row.claimed_by, row.lease_until).values(
                **taken, lease_until=to_micros(at + lease), takeovers=RunRow.takeovers + 1
            )
        )
        if _count(changed) == 0:
            return None
        return replace(as_claim(row, lease), by=holder, progress=progress)

    def _end(self, claim: Claim, **values: Any) -> None:
        """The claim's last change: owed where the database is away. The first ending that was owed is the true one."""
        if claim.id in self._owed:
            self.settle()
            return
        try:
            self._change(claim, **values)
        except UnavailableError:
            self._owed[claim.id] = (claim, values)
            raise

    def _change(self, claim: Claim, **values: Any) -> None:
        with self._database.writing() as session:
            changed = session.execute(_held(claim).values(**values))
        if _count(changed) == 0:
            raise ConflictError(
                f"The run of {claim.view!r} up to {claim.end.isoformat()} was taken over by another worker.",
                hint="Nothing is lost: that worker ends it. Give the runs a longer lease if this worker was only slow.",
            )


def _progress_of(attempts: list[RunRow], kind: str, catalog_digest: str, counted_from: int) -> str | None:
    """How far the last attempt had come that failed, unless its work was forgotten or done by other definitions.

    A backfill notes its pieces, and any other run its chunks: neither goes on where the other was.
    """
    last = max(attempts, key=lambda row: row.attempt, default=None)
    if last is None or last.state != FAILED or last.id <= counted_from:
        return None
    alike = (kind == BACKFILL) == (last.kind == BACKFILL) and last.catalog_digest == catalog_digest
    return last.progress if alike else None


def _is_done(row: RunRow, at: datetime, counted_from: int) -> bool:
    """Whether the store holds what a run did, and no clock was ahead that made it."""
    return row.state == SUCCEEDED and row.id > counted_from and row.started_at <= to_micros(at + SKEW)


def _is_free(row: RunRow, at: datetime) -> bool:
    return row.lease_until <= to_micros(at) or is_dead(row.claimed_by)


def _held(claim: Claim) -> Update:
    return update(RunRow).where(*_of(claim)).execution_options(synchronize_session=False)


def _of(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return RunRow.id == claim.id, RunRow.state == CLAIMED, RunRow.claimed_by == claim.by


def _still(number: int, holder: str, lease_until: int) -> Update:
    """A claimed run, unless its holder or its lease has changed since they were read."""
    return (
        update(RunRow)
        .where(
            RunRow.id == number,
            RunRow.state == CLAIMED,
            RunRow.claimed_by == holder,
            RunRow.lease_until == lease_until,
        )
        .execution_options(synchronize_session=False)
    )


def _count(result: object) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0
