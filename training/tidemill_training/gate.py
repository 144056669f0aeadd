"""Whether a challenger may serve: conditions on its metrics, each answered in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidemill.definitions.catalog import Gate
from tidemill.errors import DefinitionError, NotDefinedError
from tidemill.monitor.metrics import METRICS, loss_of_quality


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition and how it turned out."""

    gate: str
    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """Passed if every check did; without any gate a challenger passes."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What failed, or what every check found where none did."""
        failed = tuple(check.reason for check in self.checks if not check.passed)
        return failed or tuple(check.reason for check in self.checks) or ("no gate is declared",)


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """The champion and the challenger on the same rows: the test rows that neither was fitted on.

    `metrics` are the champion's, None where it cannot be compared, and `why_not` says why.
    """

    version: int
    metrics: Mapping[str, float] | None
    challenger: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    why_not: str = ""


def decide(gates: Sequence[Gate], challenger: Mapping[str, float], champion: Opponent | None) -> GateDecision:
    """Rate a challenger's test metrics. `champion` is None where nothing serves yet."""
    return GateDecision(checks=tuple(_check(gate, challenger, champion) for gate in gates))


def gate_metrics(gates: Sequence[Gate]) -> tuple[str, ...]:
    """The metrics the gates look at. Raises NotDefinedError or DefinitionError for a gate that cannot be checked."""
    for gate in gates:
        if gate.kind not in _KINDS:
            raise DefinitionError(f"A gate of kind {gate.kind!r} is not known.", hint=f"Known: {', '.join(_KINDS)}.")
        if gate.metric not in METRICS:
            raise NotDefinedError("metric", gate.metric, METRICS)
    return tuple(dict.fromkeys(gate.metric for gate in gates))


def _check(gate: Gate, challenger: Mapping[str, float], champion: Opponent | None) -> Check:
    value = challenger[gate.metric]
    if math.isnan(value):
        return Check(gate=gate.kind, passed=False, reason=f"{gate.metric} is not a number")
    return _KINDS[gate.kind](gate, value, champion)


def _at_least(gate: Gate, value: float, _champion: Opponent | None) -> Check:
    passed = value >= gate.value
    relation = "is at least" if passed else "is below"
    return Check(gate=gate.kind, passed=passed, reason=f"{gate.metric} {value:.4f} {relation} {gate.value:g}")


def _at_most(gate: Gate, value: float, _champion: Opponent | None) -> Check:
    passed = value <= gate.value
    relation = "is at most" if passed else "is above"
    return Check(gate=gate.kind, passed=passed, reason=f"{gate.metric} {value:.4f} {relation} {gate.value:g}")


def _not_worse(gate: Gate, value: float, champion: Opponent | None) -> Check:
    if champion is None:
        return Check(gate=gate.kind, passed=True, reason=f"{gate.metric} {value:.4f}, and there is no champion yet")
    if champion.metrics is None:
        reason = f"{gate.metric} cannot be compared with champion version {champion.version}: {champion.why_not}"
        return Check(gate=gate.kind, passed=False, reason=reason)
    held, value = champion.metrics[gate.metric], champion.challenger[gate.metric]
    drop = loss_of_quality(gate.metric, held, value)
    passed = drop <= gate.value
    theirs = f"champion version {champion.version}'s {held:.4f} on the same rows"
    if drop <= 0:
        reason = f"{gate.metric} {value:.4f} is not worse than {theirs}"
    else:
        allowed = f"{'within' if passed else 'more than'} the {gate.value:g} allowed"
        reason = f"{gate.metric} {value:.4f} is {drop:.2g} worse than {theirs}, {allowed}"
    return Check(gate=gate.kind, passed=passed, reason=reason)


_KINDS = {"at_least": _at_least, "at_most": _at_most, "not_worse_than_champion": _not_worse}
