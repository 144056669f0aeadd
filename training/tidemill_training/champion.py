"""The champion on a challenger's test part, so that both are rated on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog
from tidemill.definitions.serialization import digest_of
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelArtifact
from tidemill_training.candidate import Candidate
from tidemill_training.cutoffs import views_behind
from tidemill_training.dataset import MODE, times_of
from tidemill_training.evaluate import rate
from tidemill_training.gate import Opponent

if TYPE_CHECKING:
    from tidemill.project import Project


def face_champion(project: Project, candidate: Candidate) -> Opponent | None:
    """Rate the present champion and the candidate on the test rows that neither was fitted on; None without one.

    A champion whose artifact or features cannot be read any more is an opponent that cannot be compared, and says why.
    """
    deployment = project.deployments.current(candidate.dataset.model.name)
    if deployment is None:
        return None
    try:
        champion = ModelArtifact.load(deployment.folder(project.root), digest=deployment.digest)
        return _compare(project, champion, candidate)
    except TidemillError as error:
        return Opponent(version=deployment.version, metrics=None, why_not=str(error))


def _compare(project: Project, champion: ModelArtifact, candidate: Candidate) -> Opponent:
    unseen = _unseen_by(champion, candidate)
    outcomes = candidate.test_outcomes[unseen]
    if len(np.unique(outcomes)) < 2:
        reason = "no test row with either outcome is later than what the champion was fitted on"
        return Opponent(version=champion.manifest.version, metrics=None, why_not=reason)
    vectors = _vectors(project, champion, candidate, candidate.test_frame.filter(unseen))
    names = tuple(candidate.evaluation.metrics)
    return Opponent(
        version=champion.manifest.version,
        metrics=rate(names, outcomes, champion.predict(vectors)).metrics,
        challenger=rate(names, outcomes, candidate.predictions[unseen]).metrics,
        rows=len(outcomes),
    )


def _unseen_by(champion: ModelArtifact, candidate: Candidate) -> np.ndarray:
    """Which test rows are later than what the champion was fitted on, validation included."""
    from tidemill.clock import to_micros

    times = times_of(candidate.test_frame, candidate.dataset.model)
    return times > to_micros(champion.manifest.dataset.test_start)


def _vectors(project: Project, champion: ModelArtifact, candidate: Candidate, rows: pl.DataFrame) -> pl.DataFrame:
    """What the champion reads for these rows: the candidate's features if nothing was redefined, else its own."""
    from tidemill.offline.store import OfflineStore

    manifest = champion.manifest
    theirs = project.catalogs.by_digest(manifest.catalog_digest)
    if theirs is None or vector_digest(theirs, manifest.service) == vector_digest(
        project.catalog, candidate.dataset.model.service
    ):
        return rows
    spine = rows.drop(name for name, _ in candidate.dataset.features)
    store = OfflineStore(root=project.root, catalog=theirs, ledger=project.ledger, settings=project.settings)
    time = candidate.dataset.model.spine.time_column
    return store.training_set(manifest.service, spine, mode=MODE, time_column=time).collect()


def vector_digest(catalog: Catalog, service: str) -> str:
    """Digest of everything a service's vector is made from: the service, its views, their sources and functions."""
    found = catalog.service(service)
    named = [projection.view for projection in found.projections]
    on_demand = [catalog.on_demand_view(name) for name in named if catalog.is_on_demand(name)]
    views = [catalog.view(name) for name in views_behind(catalog, service)]
    sources = [catalog.source(view.source) for view in views]
    return digest_of([found, views, on_demand, sources])
