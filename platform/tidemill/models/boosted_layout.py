"""The trees of a fitted scikit-learn classifier, laid out as `boosted.BoostedTrees` reads them.

This looks at attributes that scikit-learn keeps to itself. So whatever was laid out is tried on probes first, and only
handed out if every one of its answers is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tidemill.models.boosted import BoostedTrees

_PROBES = 64
_LARGEST_TABLE = 32 * 2**20  # bytes; beyond it scikit-learn's own loop is the better one
_WIDEST = 64


def boosted_trees(estimator: Any) -> BoostedTrees | None:
    """The trees of a fitted binary HistGradientBoostingClassifier; None for anything that is not exactly that."""
    try:
        trees = _lay_out(_classifier_in(estimator))
        return trees if trees is not None and _agrees(trees, estimator) else None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None


def _classifier_in(estimator: Any) -> Any:
    """What a pipeline of a single step does is what its step does."""
    steps = getattr(estimator, "steps", None)
    return steps[0][1] if steps is not None and len(steps) == 1 else estimator


@dataclass(frozen=True)
class _Column:
    """One column of the matrix: where it is cut. With `categories`, each is an interval of its own."""

    place: int
    cuts: np.ndarray
    categories: np.ndarray | None = None

    @classmethod
    def of_categories(cls, place: int, categories: np.ndarray) -> _Column:
        """Two cuts around each category, so that every odd interval holds exactly one of them."""
        known = categories[~np.isnan(categories)]
        pairs = np.column_stack([np.nextafter(known, -np.inf), known])
        return cls(place, pairs.ravel(), known)

    @property
    def height(self) -> int:
        """Its rows in the table: the intervals, and one for missing values."""
        return len(self.cuts) + 2

    def goes_left(self, node: np.void, left_categories: np.ndarray) -> np.ndarray:
        """Whether a node sends each interval, and last of all missing values, to the left."""
        left = np.full(self.height, bool(node["missing_go_to_left"]))
        if self.categories is None:
            left[:-1] = np.arange(len(self.cuts) + 1) <= np.searchsorted(self.cuts, node["num_threshold"])
        else:  # between the categories lies what was never seen, and that counts as missing
            codes = np.arange(len(self.categories))
            bits = left_categories[node["bitset_idx"]]
            left[1:-1:2] = bits[codes >> 5] >> (codes & 31).astype(bits.dtype) & 1
        return left


@dataclass(frozen=True)
class _Tree:
    nodes: np.ndarray
    left_categories: np.ndarray

    @cached_property
    def spans(self) -> dict[int, tuple[int, int]]:
        """Below each node: its leaves, which are numbered from left to right, as [first, last)."""
        found: dict[int, tuple[int, int]] = {}
        self._span_of(0, 0, found)
        return found

    def _span_of(self, place: int, first: int, found: dict[int, tuple[int, int]]) -> int:
        node = self.nodes[place]
        if node["is_leaf"]:
            last = first + 1
        else:
            last = self._span_of(int(node["right"]), self._span_of(int(node["left"]), first, found), found)
        found[place] = (first, last)
        return last

    @property
    def leaves(self) -> int:
        return self.spans[0][1]

    def decisions(self) -> Iterator[tuple[np.void, tuple[int, int], tuple[int, int]]]:
        """Each node that decides, with the leaves to its left and to its right."""
        for place in self.spans:
            node = self.nodes[place]
            if not node["is_leaf"]:
                yield node, self.spans[int(node["left"])], self.spans[int(node["right"])]


def _lay_out(estimator: Any) -> BoostedTrees | None:
    if type(estimator).__name__ != "HistGradientBoostingClassifier":
        return None
    if estimator.n_trees_per_iteration_ != 1 or len(estimator.classes_) != 2:
        return None
    trees = [_Tree(predictors[0].nodes, predictors[0].raw_left_cat_bitsets) for predictors in estimator._predictors]
    columns = _columns_of(estimator, trees)
    bits = 32 if max(tree.leaves for tree in trees) <= 32 else _WIDEST
    words = sum(-(-tree.leaves // bits) for tree in trees)
    height = sum(column.height for column in columns.values())
    if height * words * bits // 8 > _LARGEST_TABLE:
        return None
    used = list(columns.values())
    table, leaves = _fill(trees, columns, bits, words, height)
    return BoostedTrees(
        columns=np.array([column.place for column in used], dtype=np.intp),
        sizes=np.array([len(column.cuts) for column in used], dtype=np.intp),
        cuts=np.concatenate([np.empty(0), *(column.cuts for column in used)]),
        table=table,
        leaves=leaves,
        baseline=float(estimator._baseline_prediction.ravel()[0]),
        extended=words > len(trees),
    )


def _columns_of(estimator: Any, trees: Sequence[_Tree]) -> dict[int, _Column]:
    """The columns that are looked at, by the number that scikit-learn gives them: categories come first there."""
    categorical = estimator.is_categorical_
    if categorical is None:
        categorical = np.zeros(estimator.n_features_in_, dtype=bool)
    places = np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])
    encoder = None if not categorical.any() else estimator._preprocessor.named_transformers_["encoder"]
    nodes = np.concatenate([tree.nodes for tree in trees])
    nodes = nodes[nodes["is_leaf"] == 0]
    found: dict[int, _Column] = {}
    for number in np.unique(nodes["feature_idx"]).tolist():
        place = int(places[number])
        if encoder is not None and number < len(encoder.categories_):
            found[number] = _Column.of_categories(place, np.asarray(encoder.categories_[number], dtype=np.float64))
        else:
            found[number] = _Column(place, np.unique(nodes["num_threshold"][nodes["feature_idx"] == number]))
    return found


def _fill(
    trees: Sequence[_Tree], columns: dict[int, _Column], bits: int, words: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """The table, and the values of the leaves. Python's integers hold all leaves of a tree; words take their parts."""
    dtype = np.dtype(f"u{bits // 8}")
    starts = dict(zip(columns, np.cumsum([0, *(column.height for column in columns.values())]), strict=False))
    table, leaves, first = np.empty((height, words), dtype=dtype), np.zeros((words, bits)), 0
    for tree in trees:
        parts = range(-(-tree.leaves // bits))
        for part in parts:
            table[:, first + part] = _word((1 << tree.leaves) - 1, part, bits)
        for node, left, right in tree.decisions():
            column, start = columns[int(node["feature_idx"])], starts[int(node["feature_idx"])]
            goes_left = column.goes_left(node, tree.left_categories)
            for part in parts:
                kept_left, kept_right = (_word(~_bits(lost), part, bits) for lost in (right, left))
                kept = np.where(goes_left, dtype.type(kept_left), dtype.type(kept_right))
                table[start : start + column.height, first + part] &= kept
        for place, (leaf, _) in tree.spans.items():
            if tree.nodes[place]["is_leaf"]:
                leaves[first + leaf // bits, leaf % bits] = tree.nodes[place]["value"]
        first += len(parts)
    return table, leaves


def _bits(span: tuple[int, int]) -> int:
    return (1 << span[1]) - (1 << span[0])


def _word(leaves: int, part: int, bits: int) -> int:
    return leaves >> (part * bits) & ((1 << bits) - 1)


def _agrees(trees: BoostedTrees, estimator: Any) -> bool:
    probes = _probes(trees, estimator)
    return np.array_equal(trees.raw(probes), estimator.decision_function(probes)) and np.array_equal(
        trees.probabilities(probes), estimator.predict_proba(probes)[:, 1]
    )


def _probes(trees: BoostedTrees, estimator: Any) -> np.ndarray:
    """Vectors made of the trees' own cuts, where comparisons are decided, and of missing values."""
    random = np.random.default_rng(0)
    probes = np.full((_PROBES, estimator.n_features_in_), np.nan)
    for place, last, size in zip(trees.columns, np.cumsum(trees.sizes), trees.sizes, strict=True):
        cuts = trees.cuts[last - size : last]
        finite = cuts[np.isfinite(cuts)]
        if len(finite):
            probes[:, place] = random.choice(finite, _PROBES)
    probes[random.random(probes.shape) < 0.2] = np.nan
    categorical = _classifier_in(estimator).is_categorical_
    numbers = slice(None) if categorical is None else ~categorical  # scikit-learn takes no infinite category
    probes[0, numbers], probes[1, numbers], probes[2] = np.inf, -np.inf, 0.0
    return probes
