"""What a check found, in words people can act on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tidemill.definitions.duration import format_duration
from tidemill.monitor.drift import Drift, Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from tidemill.definitions.catalog import Model
    from tidemill.monitor.freshness import Freshness
    from tidemill.monitor.performance import VersionPerformance

USUAL_DROP = 0.05
"""How much worse a metric may become where the model declares no trigger of its own."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know: `what` was found about `subject`, and the `advice` what to do."""

    severity: Severity
    subject: str
    what: str
    advice: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def of_drift(drift: Drift, *, prediction: bool = False) -> Iterator[Finding]:
    """A feature that moved is worth a look; predictions that moved are worth a warning."""
    if drift.verdict not in (Verdict.WATCH, Verdict.DRIFTED):
        return
    drifted = drift.verdict is Verdict.DRIFTED
    yield Finding(
        severity=Severity.WARNING if drifted else Severity.INFO,
        subject="predictions" if prediction else drift.name,
        what=f"Moved away from the training data: {drift.moved} (PSI {drift.psi:.2f} over {drift.rows:,} rows).",
        advice="Look whether the source changed; if the world did, retrain." if drifted else "Keep an eye on it.",
    )


def of_freshness(state: Freshness, *, at: datetime) -> Iterator[Finding]:
    if state.is_late and state.due is not None:
        behind = at - state.due
        yield Finding(
            severity=Severity.CRITICAL,
            subject=state.view,
            what=f"The run due at {state.due:%Y-%m-%d %H:%M} UTC has not finished, {format_duration(behind)} later.",
            advice="See `tidemill runs` for its error, or whether a scheduler runs at all (`tidemill status`).",
        )
    if state.is_stale and state.max_age is not None:
        age = (
            "There is no value at all" if state.age is None else f"The newest value is {format_duration(state.age)} old"
        )
        yield Finding(
            severity=Severity.WARNING,
            subject=state.view,
            what=f"{age}; at most {format_duration(state.max_age)} was promised.",
            advice="Look whether the source still delivers.",
        )


def of_performance(model: Model, version: VersionPerformance) -> Iterator[Finding]:
    """Metrics that lost more than the model's own trigger allows, and more than chance explains."""
    allowed = {str(t.setting("metric")): float(t.setting("drop")) for t in model.retrain if t.kind == "performance"}
    for metric in model.metrics:
        by = allowed.get(metric, USUAL_DROP)
        if version.dropped(metric, by):
            yield Finding(
                severity=Severity.CRITICAL if metric in allowed else Severity.WARNING,
                subject=f"version {version.version}",
                what=(
                    f"{metric} is {version.metrics[metric]:.3f} on {version.labelled:,} labelled predictions, "
                    f"{version.trained[metric]:.3f} in training."
                ),
                advice="Retrain; if a challenger is no better, look at the drifted features first.",
            )
