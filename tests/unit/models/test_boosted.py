from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from tidemill.models.boosted import boosted_trees

RANDOM = np.random.default_rng(5)


def data(rows: int = 3_000, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    matrix = RANDOM.normal(size=(rows, width))
    matrix[:, 0] = RANDOM.integers(0, 4, rows)
    outcome = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + RANDOM.normal(size=rows) > 2).astype(np.int8)
    matrix[RANDOM.random(matrix.shape) < 0.15] = np.nan
    return matrix, outcome


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_leaf_nodes": 3}, {"max_iter": 1}, {"max_depth": 1}, {"learning_rate": 1.0, "min_samples_leaf": 1}],
)
def test_every_answer_is_scikit_learns_to_the_last_bit(settings: dict[str, object]):
    matrix, outcome = data()
    estimator = HistGradientBoostingClassifier(random_state=0, **settings).fit(matrix, outcome)
    trees = boosted_trees(estimator)
    assert trees is not None
    expected = estimator.predict_proba(matrix)[:, 1]
    assert np.array_equal(trees.probabilities(matrix), expected)
    assert np.array_equal([trees.probabilities(row[np.newaxis, :])[0] for row in matrix[:200]], expected[:200])


def test_missing_and_infinite_values_go_where_scikit_learn_sends_them():
    matrix, outcome = data()
    matrix[:, 3] = np.where(outcome == 1, np.nan, matrix[:, 3])  # a split on missing alone
    estimator = HistGradientBoostingClassifier(random_state=0).fit(matrix, outcome)
    trees = boosted_trees(estimator)
    assert trees is not None
    edges = np.array([[value] * matrix.shape[1] for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, 5e-324)])
    assert np.array_equal(trees.raw(edges), estimator.decision_function(edges))
    assert np.array_equal(trees.raw(matrix), estimator.decision_function(matrix))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3, categorical_features=[0]),
        HistGradientBoostingClassifier(),
    ],
    ids=["forest", "categorical", "not fitted"],
)
def test_anything_else_is_left_to_scikit_learn(estimator: object):
    matrix, outcome = data()
    if not (isinstance(estimator, HistGradientBoostingClassifier) and estimator.max_iter == 100):
        estimator.fit(np.nan_to_num(matrix), outcome)  # type: ignore[attr-defined]
    assert boosted_trees(estimator) is None


def test_more_than_two_outcomes_are_left_to_scikit_learn():
    matrix, _ = data()
    assert boosted_trees(HistGradientBoostingClassifier(max_iter=2).fit(matrix, np.arange(len(matrix)) % 3)) is None


def test_trees_that_scikit_learn_answers_differently_are_never_used(monkeypatch: pytest.MonkeyPatch):
    matrix, outcome = data()
    estimator = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(matrix, outcome)
    estimator._predictors[1][0].nodes["value"] += 1.0
    assert boosted_trees(estimator) is not None
    expected = estimator.decision_function
    monkeypatch.setattr(estimator, "decision_function", lambda rows: expected(rows) + 1e-12, raising=False)
    assert boosted_trees(estimator) is None
