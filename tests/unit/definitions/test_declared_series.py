"""Columns of maps hold what was given, though Polars would give all maps the fields of the first."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from tidemill.definitions.series import declared_series
from tidemill.definitions.types import ValueType

ALIKE = [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}]


@pytest.mark.parametrize(
    "values",
    [
        [{"a": 1}, {"b": 2}, None],
        [{"a": 1}, {"a": 2.5}],
        [{"a": [1, "x"]}, {}],
        [{"b": 1, "a": 2}, {"a": 1, "b": 2}],
        [{}, {"a": None}],
        [[{"a": 1}], [{"b": 2}, {}], []],
        [{"a": {1, 2}}, {"a": b"\xff"}],
    ],
)
def test_maps_unlike_each_other_are_kept_as_they_are(values: list[Any]) -> None:
    assert repr(declared_series("m", values, ValueType.MAP).to_list()) == repr(values)


def test_maps_that_are_all_alike_are_records() -> None:
    found = declared_series("m", ALIKE, ValueType.STRUCT)
    assert found.dtype == pl.Struct({"a": pl.Int64(), "b": pl.String()})
    assert found.to_list() == ALIKE


@pytest.mark.parametrize("places", ["1.50", "1.5"])
def test_decimals_keep_their_places(places: str) -> None:
    found = declared_series("m", [Decimal(places), Decimal("22.33"), None], ValueType.DECIMAL).to_list()
    assert [str(value) for value in found] == [places, "22.33", "None"]


def test_what_has_a_type_of_its_own_has_it_without_any_value_too() -> None:
    assert declared_series("n", [None, 1], ValueType.INT32).dtype == pl.Int32
    assert declared_series("l", [], ValueType.STRING_SET).dtype == pl.List(pl.String)
    with pytest.raises(TypeError):
        declared_series("n", ["x"], ValueType.INT64)
