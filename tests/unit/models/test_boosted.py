from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tidemill.errors import InputError
from tidemill.models.artifact import ModelArtifact
from tidemill.models.boosted import BoostedTrees
from tidemill.models.boosted_layout import boosted_trees

CODES = 7


def data(rows: int = 3_000, width: int = 8, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Column 0 holds the codes 0 to 6, the others numbers; a seventh of each is missing."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, width))
    matrix[:, 0] = random.integers(0, CODES, rows)
    outcome = (matrix[:, 0] % 3 + matrix[:, 1] * matrix[:, 2] + random.normal(size=rows) > 1).astype(np.int8)
    matrix[random.random(matrix.shape) < 0.15] = np.nan
    return matrix, outcome


def fitted(**options: object) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(random_state=0, **options).fit(*data())  # type: ignore[arg-type]


def trees_of(estimator: object) -> BoostedTrees:
    found = boosted_trees(estimator)
    assert found is not None
    return found


def assert_equal_to_the_last_bit(estimator: HistGradientBoostingClassifier, matrix: np.ndarray) -> None:
    trees, expected = trees_of(estimator), estimator.predict_proba(matrix)[:, 1]
    assert np.array_equal(trees.raw(matrix), estimator.decision_function(matrix))
    assert np.array_equal(trees.probabilities(matrix), expected)
    one_by_one = [trees.probabilities(row[np.newaxis, :])[0] for row in matrix[:50]]
    assert np.array_equal(one_by_one, expected[:50])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_leaf_nodes": 3},
        {"max_iter": 1},
        {"max_depth": 1},
        {"learning_rate": 1.0, "min_samples_leaf": 1},
        {"max_iter": 5, "max_leaf_nodes": 60},
        {"max_iter": 5, "max_leaf_nodes": 300, "min_samples_leaf": 2},
        {"max_iter": 5, "min_samples_leaf": 3_000},
        {"max_iter": 20, "categorical_features": [0]},
        {"max_iter": 5, "categorical_features": [0], "max_leaf_nodes": 100, "min_samples_leaf": 2},
    ],
    ids=str,
)
def test_every_answer_is_scikit_learns_to_the_last_bit(options: dict[str, object]):
    assert_equal_to_the_last_bit(fitted(**options), data()[0])


def test_missing_and_infinite_values_go_where_scikit_learn_sends_them():
    matrix, outcome = data()
    matrix[:, 3] = np.where(outcome == 1, np.nan, matrix[:, 3])  # a split on missing alone
    estimator = HistGradientBoostingClassifier(random_state=0).fit(matrix, outcome)
    edges = [[value] * matrix.shape[1] for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, -1e308, 5e-324)]
    assert_equal_to_the_last_bit(estimator, np.array(edges))
    assert_equal_to_the_last_bit(estimator, matrix)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, np.nan])
ANY_CODE = st.integers(-3, CODES + 3).map(float) | st.sampled_from([np.nan, 2.5, 1e300, -0.0])


@pytest.fixture(scope="module")
def numeric() -> HistGradientBoostingClassifier:
    return fitted(max_iter=10)


@pytest.fixture(scope="module")
def categorical() -> HistGradientBoostingClassifier:
    """Every second code was never seen in training."""
    matrix, outcome = data()
    matrix[:, 0] = np.where(matrix[:, 0] % 2 == 0, matrix[:, 0], np.nan)
    return HistGradientBoostingClassifier(max_iter=10, random_state=0, categorical_features=[0]).fit(matrix, outcome)


@settings(max_examples=40)
@given(st.lists(st.lists(NUMBERS, min_size=8, max_size=8), min_size=1, max_size=40), st.data())
def test_any_numbers_at_all_get_scikit_learns_answers(
    numeric: HistGradientBoostingClassifier, rows: list[list[float]], drawn: st.DataObject
):
    matrix = np.array(rows)
    cuts = trees_of(numeric).cuts  # where comparisons are decided
    for row in matrix:
        row[drawn.draw(st.integers(0, 7))] = drawn.draw(st.sampled_from(cuts))
    assert_equal_to_the_last_bit(numeric, matrix)


@settings(max_examples=40)
@given(st.lists(st.tuples(ANY_CODE, st.floats(-3, 3) | st.just(np.nan)), min_size=1, max_size=40))
def test_categories_known_unknown_and_missing_get_scikit_learns_answers(
    categorical: HistGradientBoostingClassifier, pairs: list[tuple[float, float]]
):
    matrix = np.array([[code, *[number] * 7] for code, number in pairs])
    assert_equal_to_the_last_bit(categorical, matrix)


def test_a_pipeline_of_one_step_is_its_step():
    matrix, _ = data()
    estimator = make_pipeline(HistGradientBoostingClassifier(max_iter=3)).fit(*data())
    assert np.array_equal(trees_of(estimator).probabilities(matrix), estimator.predict_proba(matrix)[:, 1])


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(n_estimators=3),
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3)),
    ],
    ids=["forest", "pipeline"],
)
def test_anything_else_is_left_to_scikit_learn(estimator: object):
    matrix, outcome = data()
    assert boosted_trees(estimator.fit(np.nan_to_num(matrix), outcome)) is None  # type: ignore[attr-defined]


def test_what_was_never_fitted_has_no_trees():
    assert boosted_trees(HistGradientBoostingClassifier()) is None


def test_more_than_two_outcomes_are_left_to_scikit_learn():
    matrix, _ = data()
    assert boosted_trees(HistGradientBoostingClassifier(max_iter=2).fit(matrix, np.arange(len(matrix)) % 3)) is None


def test_trees_too_large_for_a_table_are_left_to_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tidemill.models.boosted_layout._LARGEST_TABLE", 1_000)
    assert boosted_trees(fitted(max_iter=10)) is None


def test_trees_that_scikit_learn_answers_differently_are_never_used(monkeypatch: pytest.MonkeyPatch):
    estimator = fitted(max_iter=3)
    estimator._predictors[1][0].nodes["value"] += 1.0
    assert boosted_trees(estimator) is not None
    expected = estimator.decision_function
    monkeypatch.setattr(estimator, "decision_function", lambda rows: expected(rows) + 1e-12, raising=False)
    assert boosted_trees(estimator) is None


def test_trees_are_the_same_after_a_file():
    matrix, trees = data()[0], trees_of(fitted(max_iter=10, categorical_features=[0]))
    body = trees.to_bytes()
    assert np.array_equal(BoostedTrees.from_bytes(body).raw(matrix), trees.raw(matrix))
    assert trees.to_bytes() == body


def test_a_loaded_model_predicts_from_its_trees_without_scikit_learn(
    artifact: ModelArtifact, frame: pl.DataFrame, tmp_path: Path
):
    saved = artifact.save(tmp_path / "1")
    assert saved.manifest.has_trees
    frame.write_parquet(tmp_path / "frame.parquet")
    program = f"""
import sys
import polars as pl
from pathlib import Path
from tidemill.models.artifact import ModelArtifact

model = ModelArtifact.load(Path({str(tmp_path / "1")!r}), digest={saved.digest!r})
found = model.predict(pl.read_parquet({str(tmp_path / "frame.parquet")!r}))
assert not {{"sklearn", "skops", "scipy"}} & set(sys.modules), "imported what it should do without"
print(found.tobytes().hex())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    matrix = artifact.encoding.matrix(frame)
    assert bytes.fromhex(done.stdout) == artifact.estimator.predict_proba(matrix)[:, 1].tobytes()


def test_a_loaded_model_still_has_its_estimator_and_can_be_saved_again(artifact: ModelArtifact, tmp_path: Path):
    loaded = ModelArtifact.load(artifact.save(tmp_path / "1").folder or tmp_path)
    assert loaded.estimator is None
    matrix = data(width=4)[0]
    assert np.array_equal(loaded.fitted().predict_proba(matrix)[:, 1], loaded.predict_matrix(matrix))
    assert loaded.save(tmp_path / "2").manifest.files["trees.npz"] == loaded.manifest.files["trees.npz"]


def test_a_model_without_trees_predicts_through_scikit_learn(artifact: ModelArtifact, tmp_path: Path):
    from dataclasses import replace

    matrix = np.nan_to_num(data(width=4)[0])
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(matrix, np.arange(len(matrix)) % 2)
    saved = replace(artifact, estimator=forest).save(tmp_path / "1")
    loaded = ModelArtifact.load(tmp_path / "1")
    assert not saved.manifest.has_trees
    assert loaded.trees is None
    assert np.array_equal(loaded.predict_matrix(matrix), forest.predict_proba(matrix)[:, 1])


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 and then nothing", b"\x93NUMPY"])
def test_a_file_that_holds_no_trees_is_refused(body: bytes, artifact: ModelArtifact, tmp_path: Path):
    import hashlib
    from dataclasses import replace

    saved = artifact.save(tmp_path / "1")
    (tmp_path / "1" / "trees.npz").write_bytes(body)
    files = dict(saved.manifest.files) | {"trees.npz": hashlib.sha256(body).hexdigest()}
    (tmp_path / "1" / "manifest.json").write_text(replace(saved.manifest, files=files).to_json())
    with pytest.raises(InputError, match="no boosted trees"):
        ModelArtifact.load(tmp_path / "1")
