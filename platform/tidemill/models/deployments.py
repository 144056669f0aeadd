"""Which version of a model an alias names, and named before. Serving polls this and needs no MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Select, select

from tidemill.clock import to_micros
from tidemill.metadata.database import Database
from tidemill.metadata.tables import DeploymentRow

CHAMPION = "champion"
CHALLENGER = "challenger"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """From `changed_at` (UTC) on, `alias` of `model` names `version`.

    `artifact` is the artifact's folder relative to the project's folder (absolute where it lies elsewhere), so that
    `project.root / deployment.artifact` is right in both cases. `digest` is the artifact's, checked when it is loaded.
    `number` counts up with every change of any alias: a poller compares it instead of the content.
    """

    number: int
    model: str
    alias: str
    version: int
    artifact: str
    digest: str
    reason: str
    changed_at: datetime

    def folder(self, root: Path) -> Path:
        """The artifact's folder, given the project's."""
        return root / self.artifact


class DeploymentRepository:
    """The history of every alias of a project's models. A change is one inserted row, so it is there or it is not."""

    def __init__(self, database: Database, project: str) -> None:
        self._database, self._project = database, project

    def current(self, model: str, alias: str = CHAMPION) -> Deployment | None:
        """What the alias names now, or None if it was never set."""
        query = self._newest_first().where(DeploymentRow.model == model, DeploymentRow.alias == alias).limit(1)
        with self._database.reading() as session:
            row = session.scalar(query)
        return None if row is None else _deployment(row)

    def history(self, model: str, alias: str | None = None) -> list[Deployment]:
        """Every change, newest first; of one alias or of all."""
        query = self._newest_first().where(DeploymentRow.model == model)
        if alias is not None:
            query = query.where(DeploymentRow.alias == alias)
        with self._database.reading() as session:
            return [_deployment(row) for row in session.scalars(query)]

    def champions(self) -> list[Deployment]:
        """What every model of the project serves now, by model name."""
        query = self._newest_first().where(DeploymentRow.alias == CHAMPION)
        with self._database.reading() as session:
            newest: dict[str, Deployment] = {}
            for row in session.scalars(query):
                newest.setdefault(row.model, _deployment(row))
        return [newest[model] for model in sorted(newest)]

    def newest_number(self) -> int:
        """The number of the newest change in the project, 0 before the first; cheap enough to poll."""
        query = select(DeploymentRow.id).where(DeploymentRow.project == self._project)
        with self._database.reading() as session:
            return session.scalar(query.order_by(DeploymentRow.id.desc()).limit(1)) or 0

    def set(
        self, model: str, *, alias: str, version: int, artifact: str, digest: str, reason: str, at: datetime
    ) -> Deployment:
        """Let the alias name another version. Naming what it already names adds nothing to the history."""
        with self._database.writing() as session:
            query = self._newest_first().where(DeploymentRow.model == model, DeploymentRow.alias == alias).limit(1)
            row = session.scalar(query)
            if row is None or (row.version, row.digest) != (version, digest):
                row = DeploymentRow(
                    project=self._project,
                    model=model,
                    alias=alias,
                    version=version,
                    artifact=artifact,
                    digest=digest,
                    reason=reason,
                    changed_at=to_micros(at),
                )
                session.add(row)
                session.flush()
            return _deployment(row)

    def _newest_first(self) -> Select[DeploymentRow]:
        return select(DeploymentRow).where(DeploymentRow.project == self._project).order_by(DeploymentRow.id.desc())


def previous_champion(history: list[Deployment]) -> Deployment | None:
    """The champion before the present one, or None: what a rollback goes back to.

    `history` is newest first. A rollback undoes a promotion, so that a second rollback goes one champion further back
    instead of returning to the one that was just given up.
    """
    line: list[Deployment] = []
    for deployment in reversed(history):
        held = [earlier.version for earlier in line]
        if deployment.reason.startswith(ROLLED_BACK) and deployment.version in held:
            del line[held.index(deployment.version) + 1 :]
        elif deployment.version not in held[-1:]:
            line.append(deployment)
    return line[-2] if len(line) > 1 else None


ROLLED_BACK = "rolled back from version"


def _deployment(row: DeploymentRow) -> Deployment:
    return Deployment(
        number=row.id,
        model=row.model,
        alias=row.alias,
        version=row.version,
        artifact=row.artifact,
        digest=row.digest,
        reason=row.reason,
        changed_at=_EPOCH + timedelta(microseconds=row.changed_at),
    )
