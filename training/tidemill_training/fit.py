"""Fitting an estimator: the same data and seed give the same model, on any number of threads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, TrainingDataError
from tidemill.models.encoding import MAX_CATEGORIES, Encoding, ModelFeature
from tidemill_training.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An estimator fitted on the first part of a dataset, and how its inputs are encoded.

    `iterations` is how many rounds it took, where the estimator tells.
    """

    estimator: Any
    encoding: Encoding
    matrix: np.ndarray
    iterations: int | None


def fit(make: Callable[[], Any], dataset: Dataset, *, seed: int) -> Fitted:
    """Fit on the first part; the validation part stops it early where the estimator's `fit` takes `X_val, y_val`.

    Raises DefinitionError for an estimator that cannot give probabilities, TrainingDataError where it refuses the data.
    """
    estimator = prepare(make, seed=seed)
    encoding = Encoding(features=encode_features(dataset))
    matrix = encoding.matrix(dataset.frame)
    parts, outcomes = dataset.parts, dataset.outcomes
    later = _validation(estimator, matrix[parts.validate], outcomes[parts.validate])
    try:
        # Linear algebra on several threads adds in another order each time; scikit-learn's own loops do not.
        with threadpool_limits(1, user_api="blas"), threadpool_limits(_openmp_threads(), user_api="openmp"):
            estimator.fit(_without_empty_columns(matrix[parts.fit]), outcomes[parts.fit], **later)
    except (ValueError, TypeError) as error:
        raise TrainingDataError(
            f"{type(estimator).__name__} refused the training data: {error}",
            hint="If it cannot take missing values, put a SimpleImputer before it in a pipeline.",
        ) from error
    iterations = getattr(estimator, "n_iter_", None)
    return Fitted(
        estimator=estimator,
        encoding=encoding,
        matrix=matrix,
        iterations=int(iterations) if isinstance(iterations, int | np.integer) else None,
    )


def prepare(make: Callable[[], Any], *, seed: int) -> Any:
    """A fresh estimator, seeded wherever it leaves its random state open. Raises DefinitionError if it cannot serve."""
    estimator = make()
    if not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        raise DefinitionError(
            f"{make.__qualname__}() returned {type(estimator).__name__}, which is no scikit-learn estimator."
        )
    if not hasattr(estimator, "predict_proba"):
        raise DefinitionError(
            f"{type(estimator).__name__} gives no probabilities (it has no `predict_proba`).",
            hint="Use a classifier that does, or wrap it in CalibratedClassifierCV.",
        )
    open_seeds = [
        name
        for name, value in estimator.get_params().items()
        if value is None and name.rpartition("__")[2] == "random_state"
    ]
    return estimator.set_params(**dict.fromkeys(open_seeds, seed))


def encode_features(dataset: Dataset) -> tuple[ModelFeature, ...]:
    """The model's inputs, strings with their categories in ascending order of how often the outcome was positive.

    Trees then split categories like numbers, and a linear model gets an order that means something. Only the part to
    fit on is looked at; a category seen later or too rarely to be among the most frequent is missing to the model.
    """
    fitted = dataset.frame[dataset.parts.fit]
    label = dataset.model.label.column
    return tuple(
        ModelFeature(name=name, dtype=dtype, categories=_categories(fitted, name, label))
        if dtype is ValueType.STRING
        else ModelFeature(name=name, dtype=dtype)
        for name, dtype in dataset.features
    )


def _categories(fitted: pl.DataFrame, name: str, label: str) -> tuple[str, ...]:
    seen = fitted.lazy().select(category=pl.col(name).cast(pl.String), outcome=pl.col(label)).drop_nulls("category")
    counted = seen.group_by("category").agg(rows=pl.len(), positives=pl.col("outcome").cast(pl.Int64).sum()).collect()
    frequent = counted.sort(["rows", "category"], descending=[True, False]).head(MAX_CATEGORIES)
    share = pl.col("positives") / pl.col("rows")
    return tuple(frequent.sort(share, "category").get_column("category").to_list())


def _without_empty_columns(matrix: np.ndarray) -> np.ndarray:
    """A feature without any value yet is zero to the estimator, which learns nothing from it and need not refuse it."""
    empty = np.isnan(matrix).all(axis=0)
    if not empty.any():
        return matrix
    filled = matrix.copy()
    filled[:, empty] = 0.0
    return filled


def _openmp_threads() -> int | None:
    """All of them where they wait asleep (see `tidemill.models`); one where scikit-learn was there before us."""
    return None if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" else 1


def _validation(estimator: Any, matrix: np.ndarray, outcomes: np.ndarray) -> dict[str, np.ndarray]:
    takes = {"X_val", "y_val"} <= set(inspect.signature(estimator.fit).parameters)
    if not takes or not len(matrix) or not getattr(estimator, "early_stopping", False):
        return {}
    return {"X_val": matrix, "y_val": outcomes}
