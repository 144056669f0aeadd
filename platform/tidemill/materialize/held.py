"""How far the runs of a view have come: what is done, what the online store holds, and what it held at an instant.

Each question is answered from one end of an index, so that it takes as long on a ledger of years as on its first day.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, aliased

from tidemill.clock import to_micros
from tidemill.materialize.records import instant_of
from tidemill.metadata.tables import ReportRow, RunRow

LEASE = timedelta(minutes=10)
"""How long a silent worker keeps its interval. A worker known to be dead loses it at once."""
SKEW = LEASE
"""How far the clocks of workers may differ. A run from further ahead was made by a clock that was wrong."""
FORGOTTEN = "forgotten"

_STATES = ("claimed", "succeeded", "failed")
_SKEW_MICROS = SKEW // timedelta(microseconds=1)

Conditions = tuple[ColumnElement[bool], ...]


def newest_end(session: Session, project: str, view: str, *, by: datetime | None) -> datetime | None:
    """The end of the latest interval that is done, as known `by` then."""
    return _newest(session, RunRow.interval_end, _counted(session, project, view, by))


def newest_cutoff(session: Session, project: str, view: str, *, by: datetime | None) -> datetime | None:
    """The furthest cut-off; as known `by` then, that of clocks that were right."""
    counted = _counted(session, project, view, by)
    return _newest(session, RunRow.cutoff, counted if by is None else (*counted, ~_began_ahead(project, view)))


def held(
    session: Session, project: str, view: str, *, between: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """When runs had finished, and what the store held from then on; see `Ledger.cutoffs`."""
    done = (*_done(project, view), RunRow.cutoff <= RunRow.finished_at + _SKEW_MICROS)
    query = select(RunRow.finished_at, RunRow.cutoff).where(*done).order_by(RunRow.finished_at, RunRow.id)
    before: list[int] = []
    if between is not None:
        before = _held_at(session, between[0], done)
        query = query.where(RunRow.finished_at > between[0], RunRow.finished_at <= between[1])
    rows = session.connection().execute(query)
    found = np.fromiter(chain(before, chain.from_iterable(rows)), dtype=np.int64)
    return found[::2], np.maximum.accumulate(found[1::2])


def forgotten_up_to(session: Session, project: str, view: str) -> int:
    """The id of the last run whose work the online store no longer holds; 0 where it holds all."""
    return forgotten(session, project, view).get("up_to", 0)


def forgotten(session: Session, project: str, view: str) -> dict[str, Any]:
    """What was said when a view was last forgotten; nothing where it never was."""
    query = select(ReportRow.body).where(
        ReportRow.project == project, ReportRow.kind == FORGOTTEN, ReportRow.subject == view
    )
    newest = session.scalar(query.order_by(ReportRow.id.desc()).limit(1))
    return {} if newest is None else json.loads(newest)


def _done(project: str, view: str) -> Conditions:
    """Runs of a view that have a cut-off, as only those have that succeeded: what three of the indexes hold."""
    return RunRow.project == project, RunRow.view == view, RunRow.cutoff.is_not(None)


def _counted(session: Session, project: str, view: str, by: datetime | None) -> Conditions:
    """Those whose work the store holds, but for runs that began further ahead than clocks may differ."""
    counted = (*_done(project, view), RunRow.id > forgotten_up_to(session, project, view))
    if by is None:
        return counted
    return *counted, RunRow.started_at <= to_micros(by + SKEW)


def _newest(session: Session, column: Any, conditions: Conditions) -> datetime | None:
    newest = session.scalar(select(column).where(*conditions).order_by(column.desc()).limit(1))
    return None if newest is None else instant_of(newest)


def _began_ahead(project: str, view: str) -> ColumnElement[bool]:
    """Whether a run that was claimed later began earlier, by more than clocks may differ."""
    later = aliased(RunRow)
    others = select(later.id).where(later.project == project, later.view == view, later.state.in_(_STATES))
    return others.where(later.id > RunRow.id, later.started_at < RunRow.started_at - _SKEW_MICROS).exists()


def _held_at(session: Session, at: int, done: Conditions) -> list[int]:
    """When the last run before an instant had finished, and the furthest cut-off by then; nothing before the first.

    No cut-off is far ahead of its run's end, so that going down from there the first that had finished is the one.
    """
    finished = session.scalar(select(func.max(RunRow.finished_at)).where(*done, RunRow.finished_at <= at))
    if finished is None:
        return []
    reached = select(RunRow.cutoff).where(*done, RunRow.cutoff <= at + _SKEW_MICROS, RunRow.finished_at + 0 <= at)
    furthest = session.scalar(reached.order_by(RunRow.cutoff.desc()).limit(1))
    return [finished, finished if furthest is None else furthest]
