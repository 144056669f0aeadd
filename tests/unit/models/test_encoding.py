from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError
from tidemill.models.encoding import Encoding, ModelFeature, check_encodable

DELAY = ModelFeature(name="delay", dtype=ValueType.DOUBLE)
COUNT = ModelFeature(name="count", dtype=ValueType.INT64)
WET = ModelFeature(name="wet", dtype=ValueType.BOOL)
CARRIER = ModelFeature(name="carrier", dtype=ValueType.STRING, categories=("B6", "AA"))
ENCODING = Encoding(features=(DELAY, COUNT, WET, CARRIER))

COLUMNS = {
    "carrier": ["AA", "B6", "ZZ", None],
    "wet": [True, False, None, True],
    "delay": [1.5, None, float("nan"), -3.0],
    "count": [1, 2, None, 2**60],
    "not_a_feature": ["x"] * 4,
}
MATRIX = [[1.5, 1, 1, 1], [np.nan, 2, 0, 0], [np.nan, np.nan, np.nan, np.nan], [-3, 2**60, 1, np.nan]]


def test_a_vector_becomes_one_float_column_for_each_feature_in_the_models_order():
    np.testing.assert_array_equal(ENCODING.matrix(COLUMNS), MATRIX)


def test_a_frame_and_a_served_vector_are_encoded_alike():
    frame = pl.DataFrame(COLUMNS, schema_overrides={"count": pl.Int64}, strict=False)
    np.testing.assert_array_equal(ENCODING.matrix(frame), ENCODING.matrix(COLUMNS))


def test_the_smaller_types_of_a_frame_are_read_as_well():
    frame = pl.DataFrame(COLUMNS, strict=False).with_columns(
        pl.col("delay").cast(pl.Float32), pl.col("count").cast(pl.Int64), pl.col("carrier").cast(pl.Categorical)
    )
    np.testing.assert_array_equal(ENCODING.matrix(frame), MATRIX)


def test_a_category_that_training_never_saw_is_missing_and_not_an_error():
    assert np.isnan(Encoding(features=(CARRIER,)).matrix({"carrier": ["never seen"]})).all()


def test_no_rows_give_an_empty_matrix():
    assert ENCODING.matrix({name: [] for name in COLUMNS}).shape == (0, 4)
    assert ENCODING.matrix(pl.DataFrame(COLUMNS, strict=False).clear()).shape == (0, 4)


@pytest.mark.parametrize("columns", [{"delay": [1.0]}, pl.DataFrame({"delay": [1.0]})])
def test_features_that_were_not_given_are_named(columns: object):
    with pytest.raises(InputError, match="not given: count, wet, carrier"):
        ENCODING.matrix(columns)  # type: ignore[arg-type]


def test_a_value_of_another_type_is_named():
    with pytest.raises(InputError, match="'delay' is declared DOUBLE, not 'late'"):
        ENCODING.matrix(COLUMNS | {"delay": [1.0, "late", 2.0, 3.0]})
    with pytest.raises(InputError, match="'delay' is declared DOUBLE"):
        ENCODING.matrix(pl.DataFrame(COLUMNS | {"delay": ["a", "b", "c", "d"]}, strict=False))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="one value for each row"):
        ENCODING.matrix(COLUMNS | {"delay": [1.0]})


@pytest.mark.parametrize("dtype", [ValueType.UNIX_TIMESTAMP, ValueType.DOUBLE_LIST, ValueType.MAP, ValueType.BYTES])
def test_a_type_that_is_no_number_is_refused_with_advice(dtype: ValueType):
    with pytest.raises(DefinitionError, match="on-demand feature view"):
        check_encodable("seen_at", dtype)
