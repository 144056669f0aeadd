"""Served maps, lists of them, sets and decimals against what history holds: Parquet's own maps, or records."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tidemill.definitions.catalog import Feature
from tidemill.definitions.types import ValueType
from tidemill.monitor.agreement import agree
from tidemill.monitor.served import comparable, served_column

NUMBERS = pa.map_(pa.string(), pa.int64())
MAPS: list[Any] = [{"a": 1}, {"b": 2, "c": 3}, None, {}]


def agreed(served: list[Any], recomputed: pl.Series, dtype: ValueType) -> list[bool]:
    column = served_column([{"m": value} for value in served], Feature(name="m", dtype=dtype))
    return agree(column.values, recomputed).tolist()


def test_maps_agree_with_history_s_maps_and_records() -> None:
    maps = pl.Series("m", pa.array([None if one is None else [*one.items()] for one in MAPS], type=NUMBERS))
    records = pl.DataFrame([{"m": one} for one in MAPS], infer_schema_length=None)["m"]
    for history in (maps, records):
        assert agreed(MAPS, history, ValueType.MAP) == [True] * 4


@pytest.mark.parametrize("wrong", [{"a": 2}, {"b": 1}, {"a": 1, "b": 0}, {}, None, {"a": "1"}])
def test_a_map_that_says_something_else_does_not_agree(wrong: Any) -> None:
    history = pl.Series("m", pa.array([[("a", 1)], [("b", 2), ("c", 3)]], type=NUMBERS))
    assert agreed([wrong, MAPS[1]], history, ValueType.MAP) == [False, True]


def test_lists_of_maps_agree() -> None:
    history = pl.Series("m", pa.array([[[("a", 1)], []], [[("b", 2)]]], type=pa.list_(NUMBERS)))
    assert agreed([[{"a": 1}, {}], [{"b": 3}]], history, ValueType.MAP_LIST) == [True, False]


def test_decimals_agree_however_many_places_are_written() -> None:
    history = pl.Series("m", [Decimal("12.30"), Decimal("0.50"), None])
    assert agreed(["12.3", "0.51", None], history, ValueType.DECIMAL) == [True, False, True]
    assert agreed([None, "x", "0"], history, ValueType.DECIMAL) == [False] * 3


@pytest.mark.parametrize(
    ("dtype", "served", "history"),
    [
        (ValueType.INT64_SET, [[10, 9], [1], None, []], [[9, 10, 9], [1], None, []]),
        (ValueType.STRING_SET, [["b", "a"], ["a"], None, []], [["a", "b"], ["a", "a"], None, []]),
    ],
)
def test_sets_agree_whatever_the_order_and_however_often_history_has_a_value(
    dtype: ValueType, served: list[Any], history: list[Any]
) -> None:
    recomputed = comparable(pl.Series("m", history, dtype=dtype.polars()), dtype)
    assert agreed(served, recomputed, dtype) == [True] * 4
    assert agreed([served[1], served[0], [], None], recomputed, dtype) == [False] * 4


def test_lists_agree_only_in_their_order() -> None:
    recomputed = comparable(pl.Series("m", [[1, 2], [1, 1]]), ValueType.INT64_LIST)
    assert agreed([[2, 1], [1]], recomputed, ValueType.INT64_LIST) == [False, False]
