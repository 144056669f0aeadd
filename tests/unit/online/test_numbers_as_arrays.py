"""Reads that may answer with arrays of numbers answer the same as reads that may not."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from store_parts import HOUR, T0, catalog, feature, view

from tidemill.definitions import Freshness, StalePolicy, ValueType
from tidemill.online.result import OnlineResult
from tidemill.online.store import OnlineStore

NUMBERS = view(
    "numbers",
    feature("double"),
    feature("float", ValueType.FLOAT),
    feature("whole", ValueType.INT64),
    feature("small", ValueType.INT32),
    feature("text", ValueType.STRING),
    ttl=2 * HOUR,
)
ROWS = 150
DOUBLES = (0.1, -0.0, 5e-324, 1e300, math.inf, -math.inf)
WHOLES = (0, -1, 127, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))


def frame(**changes: list[Any]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        "origin": [f"A{number}" for number in range(ROWS)],
        "double": [DOUBLES[number % len(DOUBLES)] for number in range(ROWS)],
        "float": [number / 3 for number in range(ROWS)],
        "whole": [WHOLES[number % len(WHOLES)] for number in range(ROWS)],
        "small": [number - 50 for number in range(ROWS)],
        "text": [f"text {number % 7}" for number in range(ROWS)],
        "__event_time": [T0 - HOUR] * ROWS,
    }
    types = {"float": pl.Float32, "whole": pl.Int64, "small": pl.Int32}
    return pl.DataFrame(columns | changes, schema_overrides=types).with_columns(
        pl.col("__event_time").cast(pl.Datetime("us", "UTC"))
    ).with_columns(pl.col("__event_time").alias("__known_time"))  # fmt: skip


def asked(store: OnlineStore, keys: list[Any], *, arrays: bool) -> OnlineResult:
    async def ask() -> OnlineResult:
        try:
            return await store.aread("all", [{"origin": key} for key in keys], arrays=arrays)
        finally:
            await store.aclose()

    return asyncio.run(ask())


def assert_same(store: OnlineStore, keys: list[Any]) -> OnlineResult:
    """The answer with arrays, which is the one without in all it says."""
    plain, found = asked(store, keys, arrays=False), asked(store, keys, arrays=True)
    assert list(found.values) == list(plain.values)
    for name, column in plain.values.items():
        assert type(column) is list
        assert repr(list(np.asarray(found.values[name]).tolist())) == repr(column)
    for other in (found, store.read("all", [{"origin": key} for key in keys])):
        assert repr(other.values if other is not found else plain.values) == repr(plain.values)
        assert other.statuses == plain.statuses
        assert other.event_times == plain.event_times
        assert other.stale == plain.stale
    assert (found.all_present, found.any_stale) == (plain.all_present, plain.any_stale)
    assert found.frame().equals(plain.frame(), null_equal=True)
    return found


@pytest.fixture
def store(make) -> OnlineStore:
    return make(catalog(NUMBERS))


def test_numbers_without_null_are_the_same_numbers(store: OnlineStore):
    store.write("numbers", frame())
    found = assert_same(store, [f"A{number}" for number in range(ROWS)])
    arrays = {name for name, column in found.values.items() if isinstance(column, np.ndarray)}
    assert arrays == ({"double", "float", "whole", "small"} if store.layout == "feast" else set())
    assert found.all_present


def test_nulls_and_nan_are_told_apart(store: OnlineStore):
    store.write("numbers", frame(double=[None, math.nan] * (ROWS // 2), whole=[None, 2**63 - 1] * (ROWS // 2)))
    found = assert_same(store, [f"A{number}" for number in range(ROWS)])
    assert found.values["whole"] == [None, 2**63 - 1] * (ROWS // 2)


def test_rows_that_are_not_there_or_have_no_key_leave_gaps(store: OnlineStore):
    store.write("numbers", frame())
    assert_same(store, [f"A{number * 2}" for number in range(ROWS)])
    assert_same(store, [None if number % 3 == 0 else f"A{number}" for number in range(ROWS)])
    assert_same(store, [None] * ROWS)


def test_rows_that_are_too_old_are_null(store: OnlineStore):
    store.write("numbers", frame(__event_time=[T0 - HOUR * (number % 4) for number in range(ROWS)]))
    found = assert_same(store, [f"A{number}" for number in range(ROWS)])
    assert found.values["whole"][3] is None


def test_values_past_their_freshness_are_null_where_the_policy_says_so(make):
    fresh = Freshness(max_age=HOUR / 2, policy=StalePolicy.NULL)
    store = make(catalog(view("numbers", *NUMBERS.features, freshness=fresh)))
    store.write("numbers", frame(__event_time=[T0 - HOUR * (number % 2) for number in range(ROWS)]))
    found = assert_same(store, [f"A{number}" for number in range(ROWS)])
    assert found.values["double"][1] is None
    assert found.values["double"][2] == DOUBLES[2]
