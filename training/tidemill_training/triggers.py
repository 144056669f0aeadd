"""Reasons to fit again: each declared trigger is asked whether it fires, and answers in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from tidemill.definitions.catalog import Model, Schedule, Trigger
from tidemill.errors import DefinitionError
from tidemill.models.manifest import Manifest
from tidemill_training.spine import LABEL_KNOWN, spine_of

if TYPE_CHECKING:
    from tidemill.project import Project


@dataclass(frozen=True, kw_only=True)
class TriggerCheck:
    """One trigger, whether it fires and why (not)."""

    kind: str
    fired: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What triggers look at: the champion's manifest, the instant (UTC), and since when nothing was decided."""

    project: Project
    model: Model
    champion: Manifest
    since: datetime
    at: datetime


def check_triggers(situation: Situation) -> tuple[TriggerCheck, ...]:
    """Ask every declared trigger. Raises DefinitionError for one of an unknown kind."""
    return tuple(_asker(trigger)(trigger, situation) for trigger in situation.model.retrain)


def _asker(trigger: Trigger) -> Callable[[Trigger, Situation], TriggerCheck]:
    try:
        return _ASKERS[trigger.kind]
    except KeyError:
        raise DefinitionError(
            f"A trigger of kind {trigger.kind!r} is not known.", hint=f"Known: {', '.join(_ASKERS)}."
        ) from None


def _schedule(trigger: Trigger, situation: Situation) -> TriggerCheck:
    from tidemill.schedule.ticks import ticks_between

    settings = dict(trigger.settings)
    schedule = Schedule(cron=str(settings["cron"]), timezone=str(settings.get("timezone", "UTC")))
    # The instant of the last fit is spoken for: its own tick must not fire twice.
    after = situation.since + timedelta(microseconds=1)
    due = after <= situation.at and len(ticks_between(schedule, after, situation.at)) > 0
    verb = "came due" if due else "has not come due"
    return TriggerCheck(
        kind="schedule", fired=due, reason=f"{schedule.cron!r} {verb} since {situation.since:%Y-%m-%d %H:%M} UTC"
    )


def _new_data(trigger: Trigger, situation: Situation) -> TriggerCheck:
    wanted, until = int(trigger.setting("rows")), situation.champion.dataset.until
    found = new_labels(situation)
    return TriggerCheck(
        kind="new_data",
        fired=found >= wanted,
        reason=f"{found:,} outcomes became known since {until:%Y-%m-%d %H:%M} UTC, {wanted:,} are asked for",
    )


def new_labels(situation: Situation) -> int:
    """Outcomes known by now that the champion's training could not know."""
    project, until = situation.project, situation.champion.dataset.until
    # An outcome can take long to become known, so requests from before `until` count as well.
    start = situation.champion.dataset.test_start
    spine = spine_of(project.offline, project.catalog, situation.model, start, situation.at)
    return spine.filter(pl.col(situation.model.label.column).is_not_null(), pl.col(LABEL_KNOWN) >= until).height


def _performance(trigger: Trigger, situation: Situation) -> TriggerCheck:
    from tidemill.monitor.performance import performance

    metric, allowed = str(trigger.setting("metric")), float(trigger.setting("drop"))
    report = performance(situation.project, situation.model.name, at=situation.at)
    served = report.of(situation.champion.version)
    if served is None or not served.labelled:
        return TriggerCheck(kind="performance", fired=False, reason="no prediction of the champion has its outcome yet")
    fired, lost = served.dropped(metric, allowed), served.lost(metric)
    change = f"{abs(lost):.4f} {'worse' if lost > 0 else 'better'} than in training"
    doubt = "" if fired or lost <= allowed else ", which may be chance"
    reason = f"{metric} is {change} on {served.labelled:,} outcomes, {allowed:g} worse is allowed{doubt}"
    return TriggerCheck(kind="performance", fired=fired, reason=reason)


def _drift(trigger: Trigger, situation: Situation) -> TriggerCheck:
    from tidemill.monitor.check import model_drift

    limit = float(trigger.setting("psi"))
    report = model_drift(situation.project, situation.model.name, at=situation.at)
    if not report.features:
        return TriggerCheck(kind="drift", fired=False, reason="nothing was served yet that could have drifted")
    moved = [found for found in report.features if found.psi > limit and found.psi > found.chance]
    worst = (moved or report.features)[0]
    counted = f"{len(moved)} of {len(report.features)} features drifted beyond {limit:g}, " if moved else ""
    reason = f"{counted}furthest {worst.name}: population stability index {worst.psi:.2f} ({worst.moved})"
    return TriggerCheck(kind="drift", fired=bool(moved), reason=reason)


_ASKERS: dict[str, Callable[[Trigger, Situation], TriggerCheck]] = {
    "schedule": _schedule,
    "new_data": _new_data,
    "performance": _performance,
    "drift": _drift,
}
