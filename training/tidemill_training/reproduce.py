"""Proving a model: rebuild its data, fit it again and compare everything with what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.definitions import code
from tidemill.definitions.catalog import Catalog
from tidemill.errors import DefinitionError, NotReproducibleError
from tidemill.metadata.reports import ReportRepository
from tidemill.models.artifact import ModelArtifact
from tidemill.models.manifest import Manifest
from tidemill_training.candidate import Candidate, make_candidate, predictions_digest
from tidemill_training.cutoffs import RecordedCutoffs, record, store_with
from tidemill_training.dataset import add_features, find_rows
from tidemill_training.train import Progress
from tidemill_training.versions import folder_of, resolve

if TYPE_CHECKING:
    from tidemill.project import Project

REPORT = "reproduction"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One thing as it was recorded and as it came out again. `binding` ones must be equal; the rest explains."""

    what: str
    recorded: str
    rebuilt: str
    equal: bool
    binding: bool = True


@dataclass(frozen=True, kw_only=True)
class ReproductionReport:
    """Whether a version came out again. `largest_difference` is over the test part's predictions, 0.0 if bit-equal."""

    model: str
    version: int
    comparisons: tuple[Comparison, ...]
    test_rows: int
    largest_difference: float
    made_at: datetime

    @property
    def equal(self) -> bool:
        return all(found.equal for found in self.comparisons if found.binding)

    def check(self) -> ReproductionReport:
        """Itself, or NotReproducibleError naming what differs."""
        if self.equal:
            return self
        named = [
            f"{found.what} ({found.recorded} recorded, {found.rebuilt} now)"
            for found in self.comparisons
            if found.binding and not found.equal
        ]
        raise NotReproducibleError(f"{self.model}@{self.version} came out differently: {'; '.join(named)}.")

    def to_dict(self) -> dict[str, Any]:
        comparisons = [vars(found) for found in self.comparisons]
        return vars(self) | {"equal": self.equal, "comparisons": comparisons, "made_at": self.made_at.isoformat()}


def reproduce(project: Project, reference: str, *, progress: Progress | None = None) -> ReproductionReport:
    """Rebuild `arrival_delay@champion` or `arrival_delay@3` from the definitions it was trained with and compare.

    Raises NotDefinedError for an unknown model or version, NotReproducibleError where the definitions or functions it
    was trained with are gone. A difference is no error but a row of the report.
    """
    tell = progress or (lambda _stage, _share: None)
    model, version = resolve(project, reference)
    recorded = ModelArtifact.load(folder_of(project, model, version))
    tell("building the training set", 0.0)
    candidate = _rebuild(project, recorded, tell)
    tell("comparing", 0.9)
    report = _compare(recorded, candidate, at=project.clock.now())
    ReportRepository(project.database, project.name).add(REPORT, model, report.to_dict(), at=report.made_at)
    tell("done", 1.0)
    return report


def _rebuild(project: Project, recorded: ModelArtifact, tell: Progress) -> Candidate:
    manifest, kept = recorded.manifest, recorded.cutoffs()
    catalog = _catalog(project, manifest)
    definition = catalog.model(manifest.name)
    try:
        make = code.load(manifest.estimator, project.root)
        dataset = manifest.dataset
        cutoffs = (
            record(project, catalog, definition, until=dataset.until) if kept is None else RecordedCutoffs(frame=kept)
        )
        offline = store_with(project, catalog, cutoffs)
        rows = find_rows(offline, catalog, definition, start=dataset.start, until=dataset.until)
        rebuilt = add_features(offline, rows)
    except DefinitionError as error:
        raise NotReproducibleError(
            f"{manifest.name}@{manifest.version} cannot be rebuilt: {error.message}",
            hint="Check out the definitions it was trained with, run `tidemill apply`, and try again.",
        ) from error
    tell("fitting", 0.4)
    return make_candidate(make, rebuilt, metrics=tuple(manifest.metrics))


def _catalog(project: Project, manifest: Manifest) -> Catalog:
    catalog = project.catalogs.by_digest(manifest.catalog_digest)
    if catalog is None:
        raise NotReproducibleError(
            f"{manifest.name}@{manifest.version} came from definitions {manifest.catalog_digest[:12]}, which are "
            "not in this project's metadata database.",
            hint="Is it the database of the project that trained it?",
        )
    return catalog


def _compare(recorded: ModelArtifact, candidate: Candidate, *, at: datetime) -> ReproductionReport:
    manifest = recorded.manifest
    served = recorded.predict(candidate.test_frame)
    kept = recorded.test_predictions()
    then = served if kept is None else kept["prediction"].to_numpy()
    comparisons = (
        _rows(manifest, candidate),
        _same("dataset digest", manifest.dataset.digest, candidate.dataset.digest),
        _same("test predictions, bit for bit", manifest.predictions_digest, predictions_digest(candidate.predictions)),
        _same("predictions of the stored model", manifest.predictions_digest, predictions_digest(served)),
        *(_same(f"test {name}", value, candidate.evaluation.metrics[name]) for name, value in manifest.metrics.items()),
        *(_library(name, then_version) for name, then_version in manifest.libraries.items()),
    )
    return ReproductionReport(
        model=manifest.name,
        version=manifest.version,
        comparisons=comparisons,
        test_rows=len(candidate.predictions),
        largest_difference=_largest_difference(then, candidate.predictions),
        made_at=at,
    )


def _rows(manifest: Manifest, candidate: Candidate) -> Comparison:
    parts = candidate.dataset.parts
    return _same(
        "rows (fit, validation, test)",
        _counts(manifest),
        (
            parts.validation,
            parts.test - parts.validation,
            parts.rows - parts.test,
        ),
    )


def _counts(manifest: Manifest) -> tuple[int, int, int]:
    return manifest.dataset.fit_rows, manifest.dataset.validation_rows, manifest.dataset.test_rows


def _same(what: str, recorded: object, rebuilt: object) -> Comparison:
    return Comparison(what=what, recorded=_text(recorded), rebuilt=_text(rebuilt), equal=recorded == rebuilt)


def _library(name: str, recorded: str) -> Comparison:
    now = version_of(name)
    return Comparison(what=name, recorded=recorded, rebuilt=now, equal=recorded == now, binding=False)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, tuple):
        return ", ".join(f"{part:,}" for part in value)
    return str(value)[:16]


def _largest_difference(then: np.ndarray, now: np.ndarray) -> float:
    if len(then) != len(now):
        return float("inf")
    return float(np.abs(then - now).max(initial=0.0))
