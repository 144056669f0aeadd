"""`tidemill plan` and `tidemill apply`: definitions compared, registered with Feast, and put in force as a catalog."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from typing import TYPE_CHECKING

from feast.feature_store import FeatureStore
from feast.repo_operations import apply_total_with_repo_instance

from tidemill.definitions.stored import has_view
from tidemill.errors import TidemillError, UnavailableError
from tidemill.feast.changes import Change, Plan, plan_between
from tidemill.feast.compile import catalog_of, compile_repository
from tidemill.feast.notes import notes_on
from tidemill.feast.repository import Repository, opened_repository
from tidemill.file_lock import held_alone

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Catalog
    from tidemill.project import Project

_PATIENCE = 120.0  # seconds for another process to end its apply, which takes some


@dataclass(frozen=True, kw_only=True)
class ApplyResult:
    """What was put in force: the catalog's version, which is the old one where nothing changed.

    `notes` say what could be better.
    """

    version: int
    digest: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        still = "" if self.changes else "Nothing has changed. "
        done = f"{still}Version {self.version} of the definitions is in force ({self.digest[:12]})."
        return (*(change.line for change in self.changes), done, *(f"Note: {note}" for note in self.notes))


def plan(project: Project) -> Plan:
    """What `apply` would change. Raises ConfigurationError or DefinitionError where it would refuse."""
    return plan_between(_in_force(project), compile_repository(project.root))


def apply(project: Project, *, at: datetime) -> ApplyResult:
    """Check the definitions, register them with Feast, and put their catalog in force.

    Wrong definitions change nothing. Two processes that apply at once do so one after the other, and an apply that was
    cut off is completed by the next.

    Raises ConfigurationError or DefinitionError for definitions that cannot be kept, UnavailableError where Feast's
    registry or the online store does not answer, or another process does not end its apply.
    """
    lock = held_alone(project.state / "apply.lock", doing="applying definitions", patience=_PATIENCE)
    with lock, opened_repository(project.root) as repository:
        catalog = catalog_of(repository)
        before = _in_force(project)
        changed = plan_between(before, catalog)
        register(repository)
        # Before the catalog is in force, since what is loaded twice does no harm; and after, since by the old one runs
        # may have begun meanwhile, and ended.
        _forget(project, changed.rebuild, before, at)
        applied = project.catalogs.add(catalog, at=at)
        _forget(project, changed.rebuild, before, at)
    project.reload()
    notes = notes_on(repository.contents, project.root)
    return ApplyResult(version=applied.version, digest=catalog.digest, changes=changed.changes, notes=notes)


def _forget(project: Project, views: Iterable[str], before: Catalog | None, at: datetime) -> None:
    for view in views:
        project.ledger.forget(view, at=at, redefined=before is not None and has_view(before, view))


def _in_force(project: Project) -> Catalog | None:
    newest = project.catalogs.newest()
    return None if newest is None else newest.catalog


def register(repository: Repository) -> None:
    """Feast's apply, which also deletes the online data of views that are gone (through our online store)."""
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(repository) as store:
                apply_total_with_repo_instance(
                    store, store.project, store.registry, repository.contents, skip_source_validation=True
                )
    except TidemillError:
        raise
    except Exception as error:  # Feast raises whatever its registry's driver raises
        raise UnavailableError(
            f"Feast could not register the definitions: {type(error).__name__}: {error}.",
            hint="Nothing was put in force; apply again once the cause is gone.",
        ) from error


@contextmanager
def _opened(repository: Repository) -> Iterator[FeatureStore]:
    """Feast's store, whose registry lets go of its database afterwards; Feast itself leaves it open."""
    store = FeatureStore(config=repository.config)
    try:
        yield store
    finally:
        for name in ("write_engine", "read_engine"):
            engine = getattr(store.registry, name, None)
            if engine is not None:
                engine.dispose()
