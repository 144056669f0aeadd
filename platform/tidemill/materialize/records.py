"""The ledger's rows as the rest of the code knows them: a run that people read about, and the claim of one interval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tidemill.clock import to_micros
from tidemill.metadata.tables import RunRow

_BEGINNING = -(2**63)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A ledger row as people read it. `start` is None for a run from the beginning of the history; `takeovers` is how
    often it was taken over from a dead worker since it last came further."""

    id: int
    view: str
    start: datetime | None
    end: datetime
    attempt: int
    takeovers: int
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


def as_claim(row: RunRow, lease: timedelta) -> Claim:
    return Claim(
        id=row.id,
        view=row.view,
        start=instant_or_none(row.interval_start),
        end=instant_of(row.interval_end),
        by=row.claimed_by,
        lease=lease,
        started_at=instant_of(row.started_at),
        progress=row.progress,
    )


def as_run(row: RunRow) -> Run:
    return Run(
        id=row.id,
        view=row.view,
        start=instant_or_none(row.interval_start),
        end=instant_of(row.interval_end),
        attempt=row.attempt,
        takeovers=row.takeovers,
        kind=row.kind,
        state=row.state,
        cutoff=None if row.cutoff is None else instant_of(row.cutoff),
        claimed_by=row.claimed_by,
        lease_until=instant_of(row.lease_until),
        started_at=instant_of(row.started_at),
        finished_at=None if row.finished_at is None else instant_of(row.finished_at),
        rows_read=row.rows_read,
        rows_written=row.rows_written,
        rows_skipped=row.rows_skipped,
        progress=row.progress,
        error=row.error,
        catalog_digest=row.catalog_digest,
    )


def micros_of(at: datetime | None) -> int:
    return _BEGINNING if at is None else to_micros(at)


def instant_or_none(micros: int) -> datetime | None:
    return None if micros == _BEGINNING else instant_of(micros)


def instant_of(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
