"""What cannot be trained is refused with its reason, and nothing is registered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from training_shop import (
    ESTIMATORS,
    START,
    TODAY,
    function,
    open_at,
    redefine,
    rewrite,
    write_shop,
)

from tidemill.definitions.catalog import (
    LabelDefinition,
)
from tidemill.definitions.code import reference_to
from tidemill.errors import (
    ConflictError,
    DefinitionError,
    InputError,
    NotAppliedError,
    NotDefinedError,
    TrainingDataError,
)
from tidemill.project import Project
from tidemill_training.models import list_versions
from tidemill_training.train import train
from tidemill_training.versions import trained_by_us


def test_nothing_is_trained_before_definitions_are_applied(tmp_path: Path):
    write_shop(tmp_path / "shop", days=1)
    project = open_at(tmp_path / "shop", TODAY)
    with pytest.raises(NotAppliedError, match="tidemill apply"):
        train(project, "order_return")
    project.close()


def test_an_unknown_model_is_named_with_what_was_meant(shop: Project):
    with pytest.raises(NotDefinedError, match="Did you mean 'order_return'"):
        train(shop, "order_returns")


def no_positive(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.with_columns(returned=pl.lit(value=False))


def three_outcomes(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.with_columns(returned=pl.int_range(pl.len()) % 3)


def other_ids(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.with_columns(order="x" + pl.col("order"))


def one_day(orders: pl.DataFrame) -> pl.DataFrame:
    return orders.filter(pl.col("asked_at") < START + timedelta(days=1))


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("returns", no_positive, "None of the .* labels to be fitted on is positive"),
        ("returns", three_outcomes, "should be true or false, or 1 or 0, and holds Int64: 0, 1, 2"),
        ("returns", other_ids, "No label of 'returns' is known"),
        ("returns", pl.DataFrame.clear, "No label of 'returns' is known"),
        ("orders", pl.DataFrame.clear, "'orders' asks about nobody in that time"),
        ("orders", one_day, "nothing is left to fit on"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused_and_nothing_registered(
    source: str, change: Callable[[pl.DataFrame], pl.DataFrame], message: str, fresh_shop: Project
):
    rewrite(fresh_shop, source, change)
    with pytest.raises(TrainingDataError, match=message):
        train(fresh_shop, "order_return")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mlflow")]
    assert list_versions(fresh_shop) == []
    assert fresh_shop.deployments.current("order_return") is None


def test_a_label_that_its_source_does_not_have_is_named(fresh_shop: Project):
    redefine(fresh_shop, label=LabelDefinition(source="returns", column="retuned", id_column="order"))
    with pytest.raises(DefinitionError, match=r"'returns' has no column 'retuned'.*returned"):
        train(fresh_shop, "order_return")


def test_the_future_cannot_be_trained_on(shop: Project):
    with pytest.raises(InputError, match="not known yet"):
        train(shop, "order_return", until=TODAY + timedelta(hours=1))


def test_an_estimator_that_changed_since_it_was_applied_is_refused(shop: Project):
    (shop.root / "estimators.py").write_text(ESTIMATORS.replace("max_iter=30", "max_iter=31"))
    with pytest.raises(DefinitionError, match="changed since it was applied"):
        train(shop, "order_return")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("without_probabilities", DefinitionError, "gives no probabilities"),
        ("linear", TrainingDataError, "put a SimpleImputer before it"),
    ],
)
def test_an_estimator_that_does_not_fit_the_work_says_why(
    name: str, error: type[Exception], message: str, fresh_shop: Project
):
    redefine(fresh_shop, estimator=reference_to(function(fresh_shop.root, "estimators", name), fresh_shop.root))
    with pytest.raises(error, match=message):
        train(fresh_shop, "order_return")
    assert list_versions(fresh_shop) == []


def test_a_model_that_is_being_trained_already_is_left_alone(shop: Project):
    with trained_by_us(shop, "order_return"), pytest.raises(ConflictError, match="by another process"):
        train(shop, "order_return")
