"""Metrics of a binary classifier in NumPy, equal to scikit-learn's; the platform needs no scikit-learn to monitor.

Each takes labels (0 or 1) and the probabilities of 1, both of shape (n,), and returns a float; NaN where the metric
has no meaning, such as a ROC AUC with one class only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tidemill.errors import NotDefinedError

_SMALLEST = np.finfo(np.float64).eps
_RESAMPLES = 100
_RESAMPLED_ROWS = 20_000


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting half (Mann and Whitney's U)."""
    positives = int(labels.sum())
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = _average_ranks(scores)
    u = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Precision at each threshold, weighted by the recall it adds."""
    positives = int(labels.sum())
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), labels.size - 1)
    precision = hits[ends] / (ends + 1)
    recall = hits[ends] / positives
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    if labels.size == 0:
        return float("nan")
    sure = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return float(-np.where(labels == 1, np.log(sure), np.log1p(-sure)).mean())


def brier(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(((scores - labels) ** 2).mean()) if labels.size else float("nan")


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of rows on the right side of one half."""
    return float(((scores >= 0.5) == (labels == 1)).mean()) if labels.size else float("nan")


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "accuracy": accuracy,
}
SMALLER_IS_BETTER = frozenset({"log_loss", "brier"})


def evaluate(names: Iterable[str], labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Several metrics at once. Raises NotDefinedError for a name there is no metric of."""
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    return {name: _metric(name)(labels, scores) for name in names}


def standard_errors(names: Iterable[str], labels: np.ndarray, scores: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """How far each metric would vary in another sample of this size, by a seeded bootstrap of at most 20,000 rows."""
    names = list(names)
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if labels.size < 2:
        return dict.fromkeys(names, float("nan"))
    chance = np.random.default_rng(seed)
    size = min(labels.size, _RESAMPLED_ROWS)
    samples = [chance.integers(0, labels.size, size) for _ in range(_RESAMPLES)]
    shrink = (size / labels.size) ** 0.5
    return {name: _spread([_metric(name)(labels[rows], scores[rows]) for rows in samples]) * shrink for name in names}


def loss_of_quality(name: str, before: float, now: float) -> float:
    """How much worse a metric became, in its own unit; negative where it improved."""
    return now - before if name in SMALLER_IS_BETTER else before - now


def _spread(values: list[float]) -> float:
    known = np.array([value for value in values if value == value])
    return float(known.std(ddof=1)) if known.size > 1 else float("nan")


def _metric(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    try:
        return METRICS[name]
    except KeyError:
        raise NotDefinedError("metric", name, METRICS) from None


def _average_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal scores sharing the mean of theirs."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], scores.size]
    ranks = np.empty(scores.size, dtype=np.float64)
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks
