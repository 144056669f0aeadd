"""Predictions of scikit-learn's boosted trees for a few rows, without its costs for each call and each tree.

All trees are laid out in one array of nodes and walked together, one level at a time. The answers are equal to
scikit-learn's to the last bit: the same comparisons, the leaves added in the same order. For many rows scikit-learn's
own loop is the faster one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FEW_ROWS = 16
_LARGEST = np.finfo(np.float64).max
_PROBES = 64


@dataclass(frozen=True, kw_only=True)
class BoostedTrees:
    """Every node of every tree. A node goes on to `child`, or to `child + 1` if its feature is above its threshold.

    A leaf goes on to itself. Vectors come twice, side by side: with missing values above everything, and below; a node
    looks into the half that sends them where it was taught to.
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    child: np.ndarray
    value: np.ndarray
    baseline: float
    depth: int

    def probabilities(self, matrix: np.ndarray) -> np.ndarray:
        """The probability of the positive class for each row."""
        from scipy.special import expit  # scikit-learn's own link; loaded with it, not before

        return expit(self.raw(matrix))

    def raw(self, matrix: np.ndarray) -> np.ndarray:
        """The log-odds for each row of a float64 matrix (rows, features)."""
        vectors = _twice(matrix)
        if len(vectors) == 1:
            return self._raw_of_one(vectors[0])
        at = np.broadcast_to(self.roots, (len(vectors), len(self.roots)))
        for _ in range(self.depth):
            above = np.take_along_axis(vectors, self.feature[at], axis=1) > self.threshold[at]
            at = self.child[at] + above
        return self._added(self.value[at])

    def _raw_of_one(self, vector: np.ndarray) -> np.ndarray:
        at = self.roots
        for _ in range(self.depth):
            at = self.child[at] + (vector[self.feature[at]] > self.threshold[at])
        return self._added(self.value[at][np.newaxis, :])

    def _added(self, leaves: np.ndarray) -> np.ndarray:
        """Sums from the baseline on, one tree after the other as scikit-learn adds them."""
        start = np.full((len(leaves), 1), self.baseline)
        return np.cumsum(np.hstack([start, leaves]), axis=1)[:, -1]


def boosted_trees(estimator: Any) -> BoostedTrees | None:
    """The trees of a fitted binary HistGradientBoostingClassifier; None for anything that is not exactly that.

    Looks at attributes scikit-learn keeps to itself, so that whatever was built is tried on probes first and only
    returned if every one of its answers is scikit-learn's.
    """
    try:
        trees = _lay_out(estimator)
        return trees if trees is not None and _agrees(trees, estimator) else None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None


def _lay_out(estimator: Any) -> BoostedTrees | None:
    if type(estimator).__name__ != "HistGradientBoostingClassifier" or estimator.is_categorical_ is not None:
        return None
    if estimator.n_trees_per_iteration_ != 1 or len(estimator.classes_) != 2:
        return None
    tables = [predictors[0].nodes for predictors in estimator._predictors]
    order = [_children_side_by_side(nodes) for nodes in tables]
    starts = np.concatenate([[0], np.cumsum([len(places) for places in order])[:-1]]).astype(np.intp)
    parts = [_columns(nodes, places, start, estimator.n_features_in_)
             for nodes, places, start in zip(tables, order, starts, strict=True)]  # fmt: skip
    feature, threshold, child, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return BoostedTrees(
        roots=starts,
        feature=feature,
        threshold=threshold,
        child=child,
        value=value,
        baseline=float(estimator._baseline_prediction.ravel()[0]),
        depth=max(int(nodes["depth"].max()) for nodes in tables),
    )


def _children_side_by_side(nodes: np.ndarray) -> list[int]:
    """The nodes' own numbers in a new order in which the right child follows the left one."""
    places = [0]
    for place in places:
        if not nodes[place]["is_leaf"]:
            places += [int(nodes[place]["left"]), int(nodes[place]["right"])]
    return places


def _columns(nodes: np.ndarray, places: list[int], start: int, width: int) -> tuple[np.ndarray, ...]:
    moved_to = np.empty(len(nodes), dtype=np.intp)
    moved_to[places] = np.arange(len(places))
    found, here = nodes[places], np.arange(len(places))
    leaf = found["is_leaf"].astype(bool)
    feature = found["feature_idx"] + np.where(found["missing_go_to_left"].astype(bool), width, 0)
    threshold = np.minimum(found["num_threshold"], _LARGEST)
    child = moved_to[np.where(leaf, 0, found["left"])]
    return (
        np.where(leaf, 0, feature).astype(np.intp),
        np.where(leaf, np.inf, threshold),
        (np.where(leaf, here, child) + start).astype(np.intp),
        np.where(leaf, found["value"], 0.0),
    )


def _twice(matrix: np.ndarray) -> np.ndarray:
    """Each vector with missing values at plus infinity, then at minus infinity; others are made finite."""
    missing = np.isnan(matrix)
    finite = np.clip(matrix, -_LARGEST, _LARGEST)
    return np.hstack([np.where(missing, np.inf, finite), np.where(missing, -np.inf, finite)])


def _agrees(trees: BoostedTrees, estimator: Any) -> bool:
    probes = _probes(trees, estimator.n_features_in_)
    return np.array_equal(trees.raw(probes), estimator.decision_function(probes))


def _probes(trees: BoostedTrees, width: int) -> np.ndarray:
    """Vectors made of the trees' own thresholds, where comparisons are decided, and of missing values."""
    random = np.random.default_rng(0)
    probes = np.full((_PROBES, width), np.nan)
    for column in range(width):
        cuts = trees.threshold[(trees.feature % width == column) & np.isfinite(trees.threshold)]
        if len(cuts):
            probes[:, column] = random.choice(cuts, _PROBES)
    probes[random.random(probes.shape) < 0.2] = np.nan
    probes[0], probes[1], probes[2] = np.inf, -np.inf, 0.0
    return probes
