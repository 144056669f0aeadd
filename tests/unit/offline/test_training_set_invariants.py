"""Section 2 of the semantics: one row for each row of the spine, in its order, and declared types survive."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import MICROS, Workshop, ask, at

from tidemill.definitions.types import ValueType


def test_spine_rows_stay_where_nothing_is_found(workshop: Workshop):
    """Feast drops rows whose candidates are all expired or in the future."""
    workshop.simple({"id": [1, 2], "event": [at(0), at(9)], "x": [10, 11]}, ttl=timedelta(hours=1))
    spine = ask((1, at(5)), (2, at(5)), (3, at(5)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [None, None, None]


def test_equal_spine_rows_keep_their_labels_and_the_spines_order(workshop: Workshop):
    """Feast collapses rows of equal key and time, and shuffles the rest."""
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    spine = ask((2, at(3)), (1, at(3)), (2, at(3)), (1, at(1)), label=["a", "b", "c", "d"])
    found = workshop.collect("v:x", spine)
    assert found["label"].to_list() == ["a", "b", "c", "d"]
    assert found["x"].to_list() == [20, 10, 20, 10]


def test_several_views_with_different_keys_keep_every_row(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    other = workshop.source("t", {"code": ["a", "b"], "event": [at(0)] * 2, "y": [1.5, 2.5]})
    workshop.view("w", other, {"y": ValueType.DOUBLE}, keys={"code": ValueType.STRING})
    spine = ask((1, at(1)), (1, at(1)), (2, at(1)), code=["a", "b", None])
    assert workshop.collect(["w:y", "v:x"], spine).select("y", "x").rows() == [(1.5, 10), (2.5, 10), (None, 20)]


def test_features_come_in_the_order_asked_after_the_spine(workshop: Workshop):
    source = workshop.source("s", {"id": [1], "event": [at(0)], "x": [1], "y": [2], "z": [3]})
    workshop.view("v", source, dict.fromkeys("xyz", ValueType.INT64))
    found = workshop.collect(["v:z", "v:x", "v:y"], ask((1, at(1)), note=["n"]))
    assert found.columns == ["id", "event_timestamp", "note", "z", "x", "y"]


def test_composite_keys_match_only_as_a_whole(workshop: Workshop):
    rows = {"a": [1, 1, 2], "b": ["x", "y", "x"], "event": [at(0)] * 3, "v": [10, 11, 12]}
    keys = {"a": ValueType.INT64, "b": ValueType.STRING}
    workshop.view("v", workshop.source("s", rows), {"v": ValueType.INT64}, keys=keys)
    spine = pl.DataFrame({"a": [2, 1, 2, 1, None], "b": ["x", "y", "y", None, "x"], "event_timestamp": [at(1)] * 5})
    assert workshop.collect("v:v", spine)["v"].to_list() == [12, 11, None, None, None]


@pytest.mark.parametrize("offset", [0, 10**12, -(2**62)])
def test_keys_are_found_whether_close_together_or_far_apart(workshop: Workshop, offset: int):
    ids = [offset, offset + 3, offset + 10**9]
    workshop.simple({"id": ids, "event": [at(0)] * 3, "x": [1, 2, 3]})
    spine = ask(*((key, at(1)) for key in (*ids, offset + 1, 2**63 - 1, -(2**63))))
    assert workshop.collect("v:x", spine)["x"].to_list() == [1, 2, 3, None, None, None]


def test_an_int64_with_missing_values_is_an_int64_with_nulls(workshop: Workshop):
    exact = 2**62 + 1
    workshop.simple({"id": [1], "event": [at(0)], "x": [exact]})
    found = workshop.collect("v:x", ask((1, at(1)), (2, at(1))))
    assert found["x"].dtype == pl.Int64
    assert found["x"].to_list() == [exact, None]


def test_nan_and_null_are_different_values(workshop: Workshop):
    source = workshop.source("s", {"id": [1, 2], "event": [at(0)] * 2, "y": [float("nan"), None]})
    workshop.view("v", source, {"y": ValueType.DOUBLE})
    found = workshop.collect("v:y", ask((1, at(1)), (2, at(1))))["y"]
    assert found.is_nan().to_list() == [True, None]


def test_a_newest_row_that_holds_null_is_the_value(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(0), at(1)], "x": [10, None]})
    assert workshop.collect("v:x", ask((1, at(2))))["x"].to_list() == [None]


def test_integers_that_pandas_wrote_as_floats_come_back_as_integers(workshop: Workshop):
    source = workshop.source("s", {"id": [1, 2], "event": [at(0)] * 2, "x": [3.0, float("nan")]})
    workshop.view("v", source, {"x": ValueType.INT64})
    assert workshop.collect("v:x", ask((1, at(1)), (2, at(1))))["x"].to_list() == [3, None]


def test_lists_decimals_structs_bytes_and_times_come_through(workshop: Workshop):
    table = pa.table(
        {
            "id": pa.array([1], pa.int64()),
            "event": pa.array([at(0)]),
            "many": pa.array([[1, None, 3]], pa.list_(pa.int64())),
            "exact": pa.array([Decimal("1.25")], pa.decimal128(10, 2)),
            "nested": pa.array([{"a": 1, "b": "x"}]),
            "raw": pa.array([b"\x00\xff"]),
            "when": pa.array([at(7).replace(tzinfo=None)], pa.timestamp("ms")),
            "flag": pa.array([True]),
            "kind": pa.array(["x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, workshop.root / "s.parquet")
    types = {
        "many": ValueType.INT64_LIST,
        "exact": ValueType.DECIMAL,
        "nested": ValueType.STRUCT,
        "raw": ValueType.BYTES,
        "when": ValueType.UNIX_TIMESTAMP,
        "flag": ValueType.BOOL,
        "kind": ValueType.STRING,
    }
    workshop.view("v", workshop.source("s"), types)
    found = workshop.collect([f"v:{name}" for name in types], ask((1, at(1)), (2, at(1))))
    expected = ([1, None, 3], Decimal("1.25"), {"a": 1, "b": "x"}, b"\x00\xff", at(7), True, "x")
    assert found.rows() == [(1, at(1), *expected), (2, at(1), *[None] * 7)]
    assert found["when"].dtype == MICROS
    assert found["exact"].dtype == pl.Decimal(10, 2)
