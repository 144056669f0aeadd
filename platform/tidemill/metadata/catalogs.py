"""The repository of applied catalogs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Catalog
from tidemill.definitions.serialization import catalog_from_json, to_json
from tidemill.errors import ConflictError
from tidemill.metadata.database import Database
from tidemill.metadata.tables import CatalogRow


@dataclass(frozen=True, kw_only=True)
class AppliedCatalog:
    """A catalog with its version, which counts up from 1 with every apply that changed something."""

    version: int
    catalog: Catalog


class CatalogRepository:
    def __init__(self, database: Database, project: str) -> None:
        self._database, self._project = database, project

    def newest(self) -> AppliedCatalog | None:
        with self._database.reading() as session:
            row = session.scalar(self._newest_first().limit(1))
        return None if row is None else AppliedCatalog(version=row.version, catalog=catalog_from_json(row.body))

    def newest_version(self) -> int:
        """0 before the first apply; cheap enough to poll."""
        with self._database.reading() as session:
            query = select(CatalogRow.version).where(CatalogRow.project == self._project)
            return session.scalar(query.order_by(CatalogRow.version.desc()).limit(1)) or 0

    def by_digest(self, digest: str) -> Catalog | None:
        with self._database.reading() as session:
            row = session.scalar(self._newest_first().where(CatalogRow.digest == digest).limit(1))
        return None if row is None else catalog_from_json(row.body)

    def history(self, *, limit: int = 100) -> list[AppliedCatalog]:
        """The newest applied catalogs, the one in force first."""
        with self._database.reading() as session:
            rows = list(session.scalars(self._newest_first().limit(limit)))
        return [AppliedCatalog(version=row.version, catalog=catalog_from_json(row.body)) for row in rows]

    def add(self, catalog: Catalog, *, at: datetime) -> AppliedCatalog:
        """Put a catalog in force. The same content again changes nothing and keeps its version.

        Raises ConflictError where another process put one in force at the same moment.
        """
        try:
            return self._add(catalog, at)
        except IntegrityError:
            raise ConflictError(
                "Other definitions were put in force at the same moment.", hint="Run `tidemill plan`, then apply again."
            ) from None

    def _add(self, catalog: Catalog, at: datetime) -> AppliedCatalog:
        with self._database.writing() as session:
            row = session.scalar(self._newest_first().limit(1))
            if row is not None and row.digest == catalog.digest:
                return AppliedCatalog(version=row.version, catalog=catalog)
            version = 1 if row is None else row.version + 1
            session.add(
                CatalogRow(
                    project=self._project,
                    version=version,
                    digest=catalog.digest,
                    body=to_json(catalog),
                    applied_at=to_micros(at),
                )
            )
        return AppliedCatalog(version=version, catalog=catalog)

    def _newest_first(self):
        return select(CatalogRow).where(CatalogRow.project == self._project).order_by(CatalogRow.version.desc())
