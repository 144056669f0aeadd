from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from tidemill.clock import to_micros
from tidemill.definitions import ValueType
from tidemill.definitions.catalog import CodeReference, LabelDefinition, Model, SpineDefinition, Split
from tidemill.errors import DefinitionError
from tidemill_training.dataset import Dataset
from tidemill_training.fit import encode_features, fit, prepare
from tidemill_training.split import split_by_time

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 4_000


def boosted() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=60, early_stopping=True, n_iter_no_change=3, min_samples_leaf=5)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    times = [START + timedelta(minutes=15 * row) for row in range(ROWS)]
    delay = random.normal(size=ROWS)
    carrier = random.choice(["never", "seldom", "often"], ROWS, p=[0.5, 0.3, 0.2])
    pull = delay + np.select([carrier == "often", carrier == "never"], [2, -2])
    frame = pl.DataFrame(
        {
            "asked_at": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "late": (random.random(ROWS) < 1 / (1 + np.exp(-pull))).astype(np.int8),
            "delay": delay,
            "carrier": carrier,
        }
    ).with_columns(carrier=pl.when(pl.int_range(ROWS) == ROWS - 1).then(pl.lit("new")).otherwise("carrier"))
    model = Model(
        name="m",
        service="s",
        spine=SpineDefinition(source="x", time_column="asked_at", id_column="id", keys=()),
        label=LabelDefinition(source="y", column="late", id_column="id"),
        estimator=CodeReference(module="m", qualname="f", digest=""),
        split=Split(test=timedelta(days=10), validation=timedelta(days=10)),
        metrics=("roc_auc",),
    )
    return Dataset(
        model=model,
        frame=frame,
        features=(("delay", ValueType.DOUBLE), ("carrier", ValueType.STRING)),
        parts=split_by_time(np.array([to_micros(time) for time in times]), model.split),
        until=times[-1],
        digest="",
    )


def test_categories_are_in_the_order_of_how_often_their_outcome_was_positive(dataset: Dataset):
    assert encode_features(dataset)[1].categories == ("never", "seldom", "often")


def test_a_category_of_later_rows_is_not_known_to_the_model(dataset: Dataset):
    found = fit(boosted, dataset, seed=1)
    assert np.isnan(found.matrix[-1, 1])
    assert not np.isnan(found.matrix[:-1, 1]).any()


def test_the_validation_part_stops_the_fitting(dataset: Dataset):
    iterations = fit(boosted, dataset, seed=1).iterations
    assert iterations is not None
    assert 3 < iterations < 60


def test_the_same_seed_gives_the_same_model_on_any_number_of_threads(dataset: Dataset):
    with threadpool_limits(1):
        one = fit(boosted, dataset, seed=1)
    two = fit(boosted, dataset, seed=1)
    assert np.array_equal(one.estimator.predict_proba(one.matrix), two.estimator.predict_proba(two.matrix))


def test_a_feature_without_any_value_yet_does_not_keep_a_model_from_being_fitted(dataset: Dataset):
    early = pl.int_range(ROWS) < dataset.parts.validation
    frame = dataset.frame.with_columns(delay=pl.when(~early).then("delay"))
    found = fit(boosted, replace(dataset, frame=frame), seed=1)
    changed = found.matrix.copy()
    changed[:, 0] = 5.0
    assert np.array_equal(found.estimator.predict_proba(found.matrix), found.estimator.predict_proba(changed))


def test_a_random_state_left_open_is_seeded_wherever_it_hides():
    pipeline = prepare(lambda: make_pipeline(SimpleImputer(), SGDClassifier(loss="log_loss")), seed=42)
    assert pipeline.get_params()["sgdclassifier__random_state"] == 42
    assert prepare(lambda: LogisticRegression(random_state=7), seed=42).random_state == 7


def test_what_is_no_estimator_is_named():
    def nothing() -> object:
        return object()

    with pytest.raises(DefinitionError, match=r"nothing\(\) returned object"):
        prepare(nothing, seed=0)
