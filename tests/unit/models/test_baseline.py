from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tidemill.models.baseline import baseline_from, describe

NUMBERS = pl.Series("delay", np.random.default_rng(0).normal(10, 3, 5_000))


def test_numbers_fall_into_ten_bins_of_equal_share():
    found = describe(NUMBERS)
    np.testing.assert_allclose(found.shares, 0.1, atol=0.001)
    assert found.null_share == 0
    assert found.mean == pytest.approx(NUMBERS.mean())


def test_few_distinct_numbers_have_a_bin_each():
    found = describe(pl.Series("weekday", [1, 1, 1, 2, 3, None, 3, 3]))
    assert dict(zip(found.labels, found.shares, strict=True)) == {
        "below 1": 0,
        "1": 3 / 8,
        "1 to 2": 1 / 8,
        "2 to 3": 3 / 8,
        "above 3": 0,
    }
    assert found.null_share == 1 / 8


@pytest.mark.parametrize(("value", "label"), [(6.9, "below 7"), (7, "7"), (7.1, "above 7")])
def test_another_value_than_the_only_one_has_a_bin_of_its_own(value: float, label: str):
    found = describe(pl.Series("x", [7, 7]))
    shares, _ = found.shares_of(pl.Series("x", [value]))
    assert found.labels[int(shares.argmax())] == label


def test_what_is_endless_is_counted_and_makes_no_edge():
    found = describe(pl.Series("x", [1.0, float("inf"), -float("inf"), 1.0]))
    assert dict(zip(found.labels, found.shares, strict=True)) == {"below 1": 0.25, "1": 0.5, "above 1": 0.25}
    assert (found.mean, found.std) == (1.0, 0.0)


def test_nan_counts_as_missing():
    assert describe(pl.Series("x", [1.0, float("nan"), None, 2.0])).null_share == 0.5


def test_strings_and_booleans_have_a_share_for_each_category():
    found = describe(pl.Series("carrier", ["B6", "AA", "B6", None]))
    assert found.labels == ("B6", "AA", "(other)")
    assert found.shares == (0.5, 0.25, 0.0)
    assert describe(pl.Series("wet", [True, False, True])).categories == ("true", "false")


def test_other_data_is_counted_in_the_same_bins():
    found = describe(pl.Series("carrier", ["B6", "B6", "AA"]))
    shares, missing = found.shares_of(pl.Series(["AA", "AA", "new", None]))
    assert shares.tolist() == [0, 0.5, 0.25]
    assert missing == 0.25
    shares, _ = describe(NUMBERS).shares_of(NUMBERS + 100)
    assert shares.tolist() == [0] * 9 + [1]


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Int64, pl.String, pl.Boolean])
def test_a_column_without_a_value_has_a_baseline_too(dtype: type[pl.DataType]):
    found = describe(pl.Series("empty", [None, None], dtype=dtype))
    assert found.null_share == 1
    assert sum(found.shares) == 0
    assert found.shares_of(pl.Series("empty", [None], dtype=dtype))[1] == 1
    assert found.shares_of(pl.Series("empty", [], dtype=dtype))[1] == 0


@pytest.mark.parametrize("column", [NUMBERS, pl.Series("carrier", ["B6", None, "AA"])])
def test_a_baseline_comes_back_from_json(column: pl.Series):
    found = describe(column)
    assert baseline_from(json.loads(json.dumps(vars(found)))) == found
    assert len(found.labels) == len(found.shares)
    assert sum(found.shares) + found.null_share == pytest.approx(1)
