"""The retraining loop's step: ask the triggers, fit a challenger, let it face the champion, promote or refuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING, Any

from tidemill.clock import as_utc
from tidemill.definitions.catalog import Model
from tidemill.metadata.reports import ReportRepository
from tidemill.models.artifact import read_manifest
from tidemill.models.deployments import CHALLENGER
from tidemill.models.manifest import Manifest
from tidemill_training.train import REPORT as TRAINING_REPORT
from tidemill_training.train import Progress, TrainedVersion, train
from tidemill_training.triggers import Situation, TriggerCheck, check_triggers, new_labels

if TYPE_CHECKING:
    from tidemill.project import Project

REPORT = "retrain"
WORTH_A_FIT = 0.01
"""Share of a refused challenger's rows that must have become known since, before drift, performance or new data ask for
another: it would be refused again. After a champion any outcome will do."""
PROMOTED, REFUSED, NOT_DUE = "promoted", "refused", "not due"


@dataclass(frozen=True, kw_only=True)
class RetrainDecision:
    """What was decided about a model at an instant, and why.

    `outcome` is `promoted`, `refused` (a challenger was fitted and did not pass its gates) or `not due` (no trigger
    fired, nothing was fitted). `reasons` are the gates' where a challenger was fitted, else the triggers'.
    """

    model: str
    at: datetime
    triggers: tuple[TriggerCheck, ...]
    champion: int | None
    challenger: TrainedVersion | None

    @property
    def fired(self) -> tuple[TriggerCheck, ...]:
        return tuple(check for check in self.triggers if check.fired)

    @property
    def outcome(self) -> str:
        if self.challenger is None:
            return NOT_DUE
        return PROMOTED if self.challenger.promoted else REFUSED

    @property
    def promoted(self) -> bool:
        return self.outcome == PROMOTED

    @property
    def reasons(self) -> tuple[str, ...]:
        if self.challenger is not None:
            return self.challenger.decision.reasons
        return tuple(check.reason for check in self.triggers) or ("no trigger is declared",)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "at": self.at.isoformat(),
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "triggers": [vars(check) for check in self.triggers],
            "champion_before": self.champion,
            "challenger": None if self.challenger is None else self.challenger.to_dict(),
        }


def retrain(
    project: Project, model: str, *, at: datetime | None = None, force: bool = False, progress: Progress | None = None
) -> RetrainDecision:
    """Fit a challenger if a trigger fires (or `force`, on demand), and promote it if it passes its gates.

    `at` is the instant of the decision, default now; outcomes known by then are learned from. The decision is kept as
    a report. Raises what `train` raises; the champion then stays as it is.
    """
    at = project.clock.now() if at is None else as_utc(at)
    definition = project.catalog.model(model)
    deployment = project.deployments.current(model)
    triggers = _asked(project, definition, at) + _on_demand(force)
    challenger = None
    if any(check.fired for check in triggers):
        challenger = train(project, model, until=at, at=at, progress=progress)
    decision = RetrainDecision(
        model=model,
        at=at,
        triggers=triggers,
        champion=None if deployment is None else deployment.version,
        challenger=challenger,
    )
    ReportRepository(project.database, project.name).add(REPORT, model, decision.to_dict(), at=at)
    return decision


def _on_demand(force: bool) -> tuple[TriggerCheck, ...]:
    return (TriggerCheck(kind="on_demand", fired=True, reason="asked for"),) if force else ()


def _asked(project: Project, model: Model, at: datetime) -> tuple[TriggerCheck, ...]:
    """Every trigger's answer; without a champion there is reason enough."""
    deployment = project.deployments.current(model.name)
    if deployment is None:
        return (TriggerCheck(kind="on_demand", fired=True, reason="there is no champion yet"),)
    champion, _ = read_manifest(deployment.folder(project.root))
    since = _last_trained(project, model.name, champion.trained_at)
    situation = Situation(project=project, model=model, champion=champion, since=since, at=at)
    checks = check_triggers(situation)
    return _with_something_new(situation, checks) if any(check.fired for check in checks) else checks


def _with_something_new(situation: Situation, checks: tuple[TriggerCheck, ...]) -> tuple[TriggerCheck, ...]:
    """The answers, but what is the matter does not count where another version would learn nothing else."""
    newest = _newest(situation)
    if newest.catalog_digest != situation.project.catalog.digest:
        return checks
    serves = newest.version == situation.champion.version
    wanted = 1 if serves else ceil(WORTH_A_FIT * newest.dataset.rows)
    found = new_labels(replace(situation, champion=newest))
    if found >= wanted:
        return checks
    told = f"but {found:,} outcomes became known since version {newest.version} was fitted, another takes {wanted:,}"
    return tuple(_unless_scheduled(check, told) for check in checks)


def _newest(situation: Situation) -> Manifest:
    """The version that was fitted last, promoted or not."""
    project = situation.project
    challenger = project.deployments.current(situation.model.name, alias=CHALLENGER)
    return situation.champion if challenger is None else read_manifest(challenger.folder(project.root))[0]


def _unless_scheduled(check: TriggerCheck, told: str) -> TriggerCheck:
    """What is the matter stays the matter until there is something to learn from. A schedule means what it says."""
    if not check.fired or check.kind == "schedule":
        return check
    return replace(check, fired=False, reason=f"{check.reason}; {told}")


def _last_trained(project: Project, model: str, champion_trained_at: datetime) -> datetime:
    """When a version was fitted last, promoted or not, so that a refused challenger is not fitted again at once."""
    newest = ReportRepository(project.database, project.name).newest(TRAINING_REPORT, model)
    return champion_trained_at if newest is None else max(champion_trained_at, newest.made_at)
