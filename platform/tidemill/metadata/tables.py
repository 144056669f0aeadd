"""The metadata database's tables. Instants are stored as whole microseconds since 1970-01-01 UTC, so that SQLite and
PostgreSQL compare them alike and nothing is lost to a driver's idea of a time zone."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


def _index_of_done(name: str, *columns: str) -> Index:
    """An index of the runs that have a cut-off alone: what else is asked of the ledger is never tempted to use it."""
    has_cutoff = text("cutoff IS NOT NULL")
    return Index(name, *columns, sqlite_where=has_cutoff, postgresql_where=has_cutoff)


class CatalogRow(Base):
    """One applied catalog. The newest row of a project is the one in force."""

    __tablename__ = "catalogs"
    __table_args__ = (UniqueConstraint("project", "version"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    project: Mapped[str] = mapped_column(String(255))
    version: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    applied_at: Mapped[int] = mapped_column(BigInteger)


class RunRow(Base):
    """The ledger: one materialization of one view over one interval, claimed by its unique key.

    `state` is claimed, succeeded or failed. `cutoff` is what the run had seen, set when it succeeded. `takeovers` is
    how often it was taken over from a dead worker since it last came further.
    """

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("project", "view", "interval_start", "interval_end", "attempt"),
        Index("runs_by_view", "project", "view", "state", "id"),
        Index("runs_by_state", "project", "state", "id"),
        _index_of_done("runs_by_end", "project", "view", "interval_end", "id"),
        _index_of_done("runs_by_cutoff", "project", "view", "cutoff", "interval_end", "id"),
        _index_of_done("runs_by_finish", "project", "view", "finished_at", "id", "cutoff"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    project: Mapped[str] = mapped_column(String(255))
    view: Mapped[str] = mapped_column(String(255))
    interval_start: Mapped[int] = mapped_column(BigInteger)
    interval_end: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    takeovers: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    kind: Mapped[str] = mapped_column(String(32), default="scheduled")
    state: Mapped[str] = mapped_column(String(16))
    cutoff: Mapped[int | None] = mapped_column(BigInteger, default=None)
    claimed_by: Mapped[str] = mapped_column(String(255))
    lease_until: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger, default=None)
    rows_read: Mapped[int] = mapped_column(BigInteger, default=0)
    rows_written: Mapped[int] = mapped_column(BigInteger, default=0)
    rows_skipped: Mapped[int] = mapped_column(BigInteger, default=0)
    progress: Mapped[str | None] = mapped_column(Text, default=None)
    error: Mapped[str | None] = mapped_column(Text, default=None)
    catalog_digest: Mapped[str] = mapped_column(String(64), default="")


class ReportRow(Base):
    """What a check found: parity, drift, freshness, performance or a retraining decision, as JSON."""

    __tablename__ = "reports"
    __table_args__ = (Index("reports_by_kind", "project", "kind", "made_at"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    project: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(255))
    made_at: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)


class DeploymentRow(Base):
    """Which version of a model an alias names, as a history: the newest row of (model, alias) is in force.

    MLflow's aliases say the same to people; serving reads this table, so that it needs no MLflow.
    """

    __tablename__ = "deployments"
    __table_args__ = (Index("deployments_by_alias", "project", "model", "alias", "id"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    project: Mapped[str] = mapped_column(String(255))
    model: Mapped[str] = mapped_column(String(255))
    alias: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    artifact: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[int] = mapped_column(BigInteger)
