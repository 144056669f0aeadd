"""From data to a registered version: training set, fit, test on later time, gate, register, promote."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidemill.clock import as_utc
from tidemill.definitions import code
from tidemill.definitions.catalog import Model
from tidemill.errors import InputError, TidemillError
from tidemill.metadata.reports import ReportRepository
from tidemill.models.artifact import ModelArtifact
from tidemill.models.deployments import CHALLENGER, CHAMPION
from tidemill_training.candidate import Candidate, kept_predictions, make_candidate, record_of, to_artifact
from tidemill_training.champion import face_champion
from tidemill_training.cutoffs import RecordedCutoffs, landed_until, record, store_with
from tidemill_training.dataset import add_features, find_rows
from tidemill_training.evaluate import check_metrics
from tidemill_training.fit import prepare
from tidemill_training.gate import GateDecision, Opponent, decide, gate_metrics
from tidemill_training.registry import Registry
from tidemill_training.versions import folder_of, stored_path, trained_by_us

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tidemill.project import Project

Progress = Callable[[str, float], None]
"""Told the name of the stage that begins and the share of the whole that is done, 0 to 1."""

REPORT = "training"


@dataclass(frozen=True, kw_only=True)
class TrainedVersion:
    """A registered version and what became of it.

    `promoted` means that it is the champion now; if it is not, `decision.reasons` or `promote=False` say why.
    `opponent` is the champion of before on the same test rows. `seconds` holds the wall time of each stage.
    """

    model: str
    version: int
    artifact: ModelArtifact
    decision: GateDecision
    opponent: Opponent | None
    promoted: bool
    seconds: Mapping[str, float]

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the test part."""
        return self.artifact.manifest.metrics

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what the report keeps and `--json` prints."""
        dataset, opponent = self.artifact.manifest.dataset, self.opponent
        return {
            "model": self.model,
            "version": self.version,
            "promoted": self.promoted,
            "passed": self.decision.passed,
            "reasons": list(self.decision.reasons),
            "metrics": dict(self.metrics),
            "champion_before": None
            if opponent is None
            else {"version": opponent.version, "metrics": opponent.metrics and dict(opponent.metrics)},
            "dataset": {
                "digest": dataset.digest,
                "start": dataset.start.isoformat(),
                "test_start": dataset.test_start.isoformat(),
                "until": dataset.until.isoformat(),
                "rows": dataset.rows,
                "test_rows": dataset.test_rows,
            },
            "seconds": dict(self.seconds),
        }


def train(
    project: Project,
    model: str,
    *,
    until: datetime | None = None,
    progress: Progress | None = None,
    promote: bool = True,
    at: datetime | None = None,
) -> TrainedVersion:
    """Train, register and, if it passes its gates, promote a version of a model.

    `until` bounds what may be known: request times before it, labels known before it; default `at`, the instant of the
    training, which is now by default. Where extraction has landed less, training ends where it does. A version that
    fails a gate, or is not to be promoted, stays the challenger.

    Raises NotAppliedError, NotDefinedError or DefinitionError for definitions that cannot be trained, TrainingDataError
    for data nothing can be learned from, ConflictError if the model is being trained already. Nothing is registered
    then.
    """
    at = project.clock.now() if at is None else as_utc(at)
    until = at if until is None else as_utc(until)
    if until > at:
        raise InputError(
            f"Training until {until:%Y-%m-%d %H:%M} UTC would need labels that are not known yet: it is "
            f"{at:%Y-%m-%d %H:%M} UTC for this project.",
            hint="Train until now or earlier.",
        )
    definition = project.catalog.model(model)
    make, metrics = check_trainable(project, definition)
    stages = _Stages(progress)
    with trained_by_us(project, model):
        stages.begin("building the training set", 0.0)
        until = landed_until(project, project.catalog, definition, until=until)
        cutoffs = record(project, project.catalog, definition, until=until)
        offline = store_with(project, project.catalog, cutoffs)
        rows = find_rows(offline, project.catalog, definition, start=None, until=until)
        with Registry.opening(project) as opening:
            dataset = add_features(offline, rows)
            stages.begin("fitting", 0.4)
            candidate = make_candidate(make, dataset, metrics=metrics)
            stages.begin("comparing with the champion", 0.75)
            opponent = face_champion(project, candidate)
            decision = decide(definition.gates, candidate.evaluation.metrics, opponent)
            stages.begin("registering", 0.8)
            artifact = _register(project, candidate, cutoffs, opening, at=at)
            promoted = _deploy(project, artifact, decision, promote=promote, at=at)
            opening.result().mirror_aliases(model)
        stages.end()
    trained = TrainedVersion(
        model=model,
        version=artifact.manifest.version,
        artifact=artifact,
        decision=decision,
        opponent=opponent,
        promoted=promoted,
        seconds=stages.seconds,
    )
    ReportRepository(project.database, project.name).add(REPORT, model, trained.to_dict(), at=at)
    return trained


def check_trainable(project: Project, definition: Model) -> tuple[Callable[[], Any], tuple[str, ...]]:
    """The estimator's maker and the metrics to compute; raises for whatever is declared wrongly, before any work."""
    make = code.load(definition.estimator, project.root)
    prepare(make, seed=definition.seed)
    return make, check_metrics((*definition.metrics, *gate_metrics(definition.gates)))


def _register(
    project: Project, candidate: Candidate, cutoffs: RecordedCutoffs, opening: Future[Registry], *, at: datetime
) -> ModelArtifact:
    """A run in MLflow, a version, the artifact's folder, in this order: what is listed is always whole."""
    registry, model = opening.result(), candidate.dataset.model
    run_id = registry.start_run(model.name, params=_params(candidate), tags=_tags(project, candidate), at=at)
    try:
        version = registry.reserve(model.name, run_id, folder_of(project, model.name))
        artifact = to_artifact(candidate, project.catalog, version=version, run_id=run_id, at=at)
        folder = folder_of(project, model.name, version)
        saved = artifact.save(folder, predictions=kept_predictions(candidate), cutoffs=cutoffs.frame)
        registry.complete(saved.manifest, folder)
    except BaseException as error:
        with contextlib.suppress(TidemillError):
            registry.abandon(run_id, repr(error))
        raise
    return saved


def _deploy(project: Project, artifact: ModelArtifact, decision: GateDecision, *, promote: bool, at: datetime) -> bool:
    """Name the version challenger, and champion if it may be. One row each: a crash between them promotes nothing."""
    deploy(project, artifact, alias=CHALLENGER, reason="; ".join(decision.reasons), at=at)
    if not (promote and decision.passed):
        return False
    deploy(project, artifact, alias=CHAMPION, reason="; ".join(decision.reasons), at=at)
    return True


def deploy(project: Project, artifact: ModelArtifact, *, alias: str, reason: str, at: datetime) -> None:
    """Let an alias name a saved artifact; serving takes it up from there."""
    model, version = artifact.manifest.name, artifact.manifest.version
    project.deployments.set(
        model,
        alias=alias,
        version=version,
        artifact=stored_path(project, folder_of(project, model, version)),
        digest=artifact.digest,
        reason=reason,
        at=at,
    )


def _params(candidate: Candidate) -> dict[str, Any]:
    record = record_of(candidate.dataset)
    shown = {"start": record.start, "test_start": record.test_start, "until": record.until, "rows": record.rows}
    shown |= {"features": len(candidate.dataset.features), "seed": candidate.dataset.model.seed}
    estimator = candidate.fitted.estimator
    return shown | {"estimator": type(estimator).__name__} | {f"estimator.{k}": v for k, v in _plain(estimator).items()}


def _plain(estimator: Any) -> dict[str, Any]:
    """The estimator's own settings, without the estimators nested in it."""
    settings = estimator.get_params(deep=True)
    return {name: value for name, value in settings.items() if value is None or isinstance(value, str | int | float)}


def _tags(project: Project, candidate: Candidate) -> dict[str, str]:
    return {
        "tidemill.project": project.name,
        "tidemill.model": candidate.dataset.model.name,
        "tidemill.service": candidate.dataset.model.service,
        "tidemill.catalog": project.catalog.digest,
        "tidemill.dataset": candidate.dataset.digest,
    }


class _Stages:
    """Tells progress and takes the time of each stage."""

    def __init__(self, progress: Progress | None) -> None:
        self._tell = progress or (lambda _stage, _share: None)
        self._name, self._since = "", 0.0
        self.seconds: dict[str, float] = {}

    def begin(self, name: str, share: float) -> None:
        self._close()
        self._name, self._since = name, time.perf_counter()
        self._tell(name, share)

    def end(self) -> None:
        self._close()
        self._tell("done", 1.0)

    def _close(self) -> None:
        if self._name:
            self.seconds[self._name] = time.perf_counter() - self._since
