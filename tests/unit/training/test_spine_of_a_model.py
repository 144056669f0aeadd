"""Requests meet their outcomes whatever types both were written in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tidemill.definitions.catalog import (
    Catalog,
    CodeReference,
    LabelDefinition,
    Model,
    Source,
    SpineDefinition,
    Split,
)
from tidemill.errors import DefinitionError, TrainingDataError
from tidemill.offline.store import OfflineStore
from tidemill_training.spine import labelled, spine_of

START = datetime(2024, 1, 1, tzinfo=UTC)
NAN = float("nan")


def outcomes(root: Path, ids: Any, asked: Any, answers: Any) -> list[tuple[Any, int]]:
    """The ids and outcomes of requests `ids`, of which those `asked` were answered."""
    known = [START + timedelta(hours=1)] * len(asked)
    pl.DataFrame({"row": ids, "at": [START] * len(ids)}).write_parquet(root / "asked.parquet")
    pl.DataFrame({"row": asked, "at": known, "won": answers}).write_parquet(root / "answers.parquet")
    names = ("asked", "answers")
    sources = tuple(Source(name=name, path=f"{name}.parquet", timestamp_field="at") for name in names)
    model = Model(
        name="m",
        service="none",
        spine=SpineDefinition(source="asked", time_column="at", id_column="row", keys=()),
        label=LabelDefinition(source="answers", column="won", id_column="row"),
        estimator=CodeReference(module="m", qualname="make", digest=""),
        split=Split(test=timedelta(days=1)),
        metrics=("roc_auc",),
    )
    catalog = Catalog(project="p", sources=sources, models=(model,))
    store = OfflineStore(root=root, catalog=catalog)
    found = labelled(spine_of(store, catalog, model, None, START + timedelta(days=1)), model)
    return found.select(pl.col("row").cast(pl.String), "won").rows()


@pytest.mark.parametrize(
    "answers",
    [
        [1, 0, None],
        [True, False, None],
        [1.0, 0.0, None],
        [1.0, 0.0, NAN],
        pl.Series([1.0, 0.0, NAN], dtype=pl.Float32),
        [Decimal(1), Decimal(0), None],
    ],
)
def test_a_yes_or_no_may_be_written_as_any_number_and_missing_ones_are_left_out(tmp_path: Path, answers: Any):
    assert outcomes(tmp_path, [1, 2, 3], [1, 2, 3], answers) == [("1", 1), ("2", 0)]


@pytest.mark.parametrize("answers", [[1.0, 0.5], ["yes", "no"], [2, 0]])
def test_what_is_no_yes_or_no_is_refused(tmp_path: Path, answers: Any):
    with pytest.raises(TrainingDataError, match="Label 'won' should be true or false"):
        outcomes(tmp_path, [1, 2], [1, 2], answers)


@pytest.mark.parametrize(
    ("ids", "asked"),
    [
        ([1, 2], [1.0, 2.0, NAN, 1.5]),
        ([1.0, 2.0], [1, 2]),
        (["1", "2"], pl.Series(["1", "2"], dtype=pl.Categorical)),
        (pl.Series(["1", "2"], dtype=pl.Categorical), ["1", "2"]),
    ],
)
def test_ids_that_say_the_same_meet(tmp_path: Path, ids: Any, asked: Any):
    found = outcomes(tmp_path, ids, asked, [1, 0, 1, 1][: len(asked)])
    assert [(name.removesuffix(".0"), won) for name, won in found] == [("1", 1), ("2", 0)]


def test_ids_of_different_kinds_are_refused_with_both_named(tmp_path: Path):
    with pytest.raises(DefinitionError, match=r"'row' of 'asked' is Int64, but 'row' of 'answers', .* is String"):
        outcomes(tmp_path, [1], ["1"], [1])


def test_ids_that_are_all_missing_answer_nobody(tmp_path: Path):
    with pytest.raises(TrainingDataError, match="No label of 'answers' is known"):
        outcomes(tmp_path, [1], [None], [1])
