"""Whether what is served still looks like what was learned from.

The population stability index of a feature sums (now - then) * ln(now / then) over bins: below 0.1 nothing moved, from
0.2 on the population is another. With few rows the index is large by chance alone: times n * m / (n + m) it follows a
chi-squared law with as many degrees of freedom as there are bins less one, so a verdict other than `stable` also needs
the index to be beyond what chance gives once in a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl

from tidemill.models.baseline import Baseline

WATCH_PSI, DRIFTED_PSI = 0.1, 0.2
_FEWEST_ROWS = 50
_Z_ONE_IN_A_THOUSAND = 3.0902


class Verdict(StrEnum):
    STABLE = "stable"
    WATCH = "watch"
    DRIFTED = "drifted"
    TOO_FEW = "too few rows"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far one column moved. `psi` and `js` (Jensen-Shannon distance, base 2) are 0 where nothing did.

    `chance` is the index that chance alone exceeds once in a thousand samples of these sizes. `moved` says which bin
    moved most, for people.
    """

    name: str
    psi: float
    js: float
    chance: float
    rows: int
    baseline_rows: int
    nulls_then: float
    nulls_now: float
    verdict: Verdict
    moved: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def drift_of(baselines: Iterable[Baseline], served: pl.DataFrame) -> tuple[Drift, ...]:
    """Drift of every column that both sides have, the furthest moved first."""
    found = [_drift(baseline, served[baseline.name]) for baseline in baselines if baseline.name in served.columns]
    return tuple(sorted(found, key=lambda drift: -drift.psi))


def worst(drifts: Iterable[Drift]) -> Verdict:
    """The gravest verdict of all; `stable` where there is none."""
    order = [Verdict.STABLE, Verdict.TOO_FEW, Verdict.WATCH, Verdict.DRIFTED]
    return max((drift.verdict for drift in drifts), key=order.index, default=Verdict.STABLE)


def psi(then: np.ndarray, now: np.ndarray, *, rows_then: int, rows_now: int) -> float:
    """Population stability index of two lists of shares; an empty bin counts as half a row."""
    p = np.maximum(then, 0.5 / max(rows_then, 1))
    q = np.maximum(now, 0.5 / max(rows_now, 1))
    present = (then > 0) | (now > 0)
    return float(((q - p) * np.log(q / p))[present].sum())


def jensen_shannon(then: np.ndarray, now: np.ndarray) -> float:
    """Jensen-Shannon distance, from 0 to 1."""
    middle = (then + now) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(side > 0, side * np.log2(side / middle), 0.0).sum() for side in (then, now)]
    return float(np.sqrt(max(sum(parts) / 2, 0.0)))


def psi_by_chance(bins: int, rows_then: int, rows_now: int) -> float:
    """The index that two samples of one population exceed once in a thousand (Wilson and Hilferty's approximation)."""
    freedom = max(bins - 1, 1)
    spread = 2 / (9 * freedom)
    chi_squared = freedom * (1 - spread + _Z_ONE_IN_A_THOUSAND * spread**0.5) ** 3
    return chi_squared * (1 / max(rows_then, 1) + 1 / max(rows_now, 1))


def _drift(baseline: Baseline, column: pl.Series) -> Drift:
    shares, nulls = baseline.shares_of(column)
    then, now = np.append(baseline.shares, baseline.null_share), np.append(shares, nulls)
    rows = len(column)
    index = psi(then, now, rows_then=baseline.rows, rows_now=rows) if rows else 0.0
    chance = psi_by_chance(int(((then > 0) | (now > 0)).sum()), baseline.rows, rows)
    return Drift(
        name=baseline.name,
        psi=index,
        js=jensen_shannon(then, now) if rows else 0.0,
        chance=chance,
        rows=rows,
        baseline_rows=baseline.rows,
        nulls_then=baseline.null_share,
        nulls_now=float(nulls),
        verdict=_verdict(index, chance, rows),
        moved=_most_moved(baseline, then, now) if rows else "",
    )


def _verdict(index: float, chance: float, rows: int) -> Verdict:
    if rows < _FEWEST_ROWS:
        return Verdict.TOO_FEW
    if index < WATCH_PSI or index <= chance:
        return Verdict.STABLE
    return Verdict.WATCH if index < DRIFTED_PSI else Verdict.DRIFTED


def _most_moved(baseline: Baseline, then: np.ndarray, now: np.ndarray) -> str:
    place = int(np.argmax(np.abs(now - then)))
    return f"{now[place]:.1%} are {(*baseline.labels, 'missing')[place]}, {then[place]:.1%} were in training"
