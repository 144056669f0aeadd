"""The repository of reports: what checks found, kept as JSON with the instant they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, select

from tidemill.clock import to_micros
from tidemill.metadata.database import Database
from tidemill.metadata.tables import ReportRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """A report as it was kept. `subject` is the model it is about, or the project's name; `made_at` is UTC."""

    id: int
    kind: str
    subject: str
    made_at: datetime
    body: dict[str, Any]


class ReportRepository:
    def __init__(self, database: Database, project: str) -> None:
        self._database, self._project = database, project

    def add(self, kind: str, subject: str, body: Mapping[str, Any], *, at: datetime) -> StoredReport:
        """Keep a report. The body must be plain JSON; not-a-number becomes null."""
        text = json.dumps(_finite(body), sort_keys=True)
        with self._database.writing() as session:
            row = ReportRow(project=self._project, kind=kind, subject=subject, made_at=to_micros(at), body=text)
            session.add(row)
            session.flush()
            return _report(row)

    def newest(self, kind: str, subject: str | None = None) -> StoredReport | None:
        found = self.list(kind, subject, limit=1)
        return found[0] if found else None

    def list(self, kind: str | None = None, subject: str | None = None, *, limit: int = 100) -> list[StoredReport]:
        """The newest reports first, of one kind and about one subject where asked."""
        with self._database.reading() as session:
            return [_report(row) for row in session.scalars(self._query(kind, subject).limit(limit))]

    def _query(self, kind: str | None, subject: str | None) -> Select[ReportRow]:
        query = select(ReportRow).where(ReportRow.project == self._project)
        if kind is not None:
            query = query.where(ReportRow.kind == kind)
        if subject is not None:
            query = query.where(ReportRow.subject == subject)
        return query.order_by(ReportRow.made_at.desc(), ReportRow.id.desc())


def _report(row: ReportRow) -> StoredReport:
    made_at = _EPOCH + timedelta(microseconds=row.made_at)
    return StoredReport(id=row.id, kind=row.kind, subject=row.subject, made_at=made_at, body=json.loads(row.body))


def _finite(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {str(key): _finite(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_finite(value) for value in item]
    if isinstance(item, datetime):
        return item.isoformat()
    if isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
        return None
    return item
