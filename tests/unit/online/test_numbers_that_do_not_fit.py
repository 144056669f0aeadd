"""Whole numbers over windows that their type cannot hold are null and named, however they came there; never others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from online_stores import open_store

from tidemill.clock import to_micros
from tidemill.definitions import (
    Aggregation,
    AggregationFunction,
    Catalog,
    Entity,
    Feature,
    Projection,
    Service,
    Source,
    Stream,
    ValueType,
    View,
)
from tidemill.offline.windows import window_values
from tidemill.online.result import OnlineResult
from tidemill.online.store import Status

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
F = AggregationFunction
LAST = 2**63 - 1
SCHEMA = {"key": pl.Int64, "at": pl.Datetime("us", "UTC"), "x": pl.Int64}
TYPES: dict[F, ValueType] = {
    F.COUNT: ValueType.INT64,
    F.SUM: ValueType.INT64,
    F.MEAN: ValueType.DOUBLE,
    F.STD: ValueType.DOUBLE,
    F.MAX: ValueType.INT64,
    F.LAST: ValueType.INT64,
}
QUICK = {function: TYPES[function] for function in (F.COUNT, F.SUM, F.MEAN, F.MAX)}


def catalog(types: dict[F, ValueType]) -> Catalog:
    view = View(
        name="v",
        entities=("key",),
        join_keys=("key",),
        source="events",
        stream="pushed",
        features=tuple(Feature(name=function.value, dtype=dtype) for function, dtype in types.items()),
        aggregations=tuple(
            Aggregation(name=function.value, function=function, column="x", window=HOUR, hop=HOUR / 12)
            for function in types
        ),
    )
    return Catalog(
        project="prod",
        entities=(Entity(name="key", join_key="key", dtype=ValueType.INT64),),
        sources=(Source(name="events", path="events", timestamp_field="at"),),
        streams=(Stream(name="pushed", kind="push", source="events"),),
        views=(view,),
        services=(
            Service(
                name="all", projections=(Projection(view="v", features=tuple(function.value for function in types)),)
            ),
        ),
    )


class World:
    """An online store and the history of what was pushed to it."""

    def __init__(self, address: str, root: Path, types: dict[F, ValueType]) -> None:
        self.catalog, self.history = catalog(types), pl.DataFrame(schema=SCHEMA)
        self.store = open_store(self.catalog, address, at=NOW, root=root)

    def push(self, *values: int, minutes: int = 0, key: int = 1) -> None:
        """Events of so many minutes ago."""
        rows = [(key, NOW - timedelta(minutes=minutes), value) for value in values]
        frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        self.store.push("pushed", frame, at=NOW)
        self.history = pl.concat([self.history, frame])

    def read(self, *keys: int) -> OnlineResult:
        return self.store.read("all", [{"key": key} for key in keys], at=NOW)

    def offline(self, key: int) -> dict[str, Any]:
        at = np.array([to_micros(NOW)])
        keys = pl.DataFrame({"key": [key]})
        view, events = self.catalog.view("v"), self.history.lazy()
        return window_values(view, events, keys, at, at, timestamp_field="at", refuse=False).row(0, named=True)


@pytest.fixture
def open_world(address: str, tmp_path: Path) -> Iterator[Any]:
    opened: list[World] = []

    def make(types: dict[F, ValueType]) -> World:
        opened.append(World(address, tmp_path, types))
        return opened[-1]

    yield make
    for world in opened:
        world.store.close()


WAYS = {
    "one event after the other": lambda world, values: [world.push(value) for value in values],
    "a few events together": lambda world, values: world.push(*values),
    "many events together": lambda world, values: world.push(*[0] * 100, *values),
    "in tiles of their own": lambda world, values: [world.push(v, minutes=5 * n) for n, v in enumerate(values)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("types", [TYPES, QUICK], ids=["of any kind", "of the usual kinds"])
@pytest.mark.parametrize("values", [(LAST, 1), (-LAST, -2), (2**62, 2**62, 5), (LAST, LAST, LAST)])
def test_a_sum_that_does_not_fit_is_null(
    open_world: Any, way: str, types: dict[F, ValueType], values: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    world = open_world(types)
    WAYS[way](world, values)
    world.push(3, key=2)
    with caplog.at_level(logging.WARNING):
        alone, together = world.read(1), world.read(2, 1, 3)
    for result, row in ((alone, 0), (together, 1)):
        found = {name: column[row] for name, column in result.values.items()}
        assert found["sum"] is found["mean"] is found.get("std") is None
        assert (found["count"], found["max"]) == (len(world.history) - 1, max(world.history["x"].to_list()[:-1]))
        assert [result.statuses[name][row] for name in ("sum", "max")] == [Status.NULL_VALUE, Status.PRESENT]
        assert found == world.offline(1)
    assert {name: column[0] for name, column in together.values.items()} == world.offline(2)
    assert together.values["sum"] == [3, None, None]
    assert world.store.wrong.count["v:sum"] == 2
    assert "v:sum is not what the catalog says (its type cannot hold the number); it reads as null" in caplog.text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("values", [(LAST - 1, 1), (-LAST, 0), (2**62, -(2**62), 2**62, 2**62 - 1), (2**53, 1)])
def test_a_sum_that_just_fits_is_exact(open_world: Any, way: str, values: tuple[int, ...]) -> None:
    world = open_world(TYPES)
    WAYS[way](world, values)
    found = {name: column[0] for name, column in world.read(1).values.items()}
    assert found["sum"] == sum(values)
    assert found["mean"] == pytest.approx(sum(values) / found["count"], rel=1e-9)
    assert world.offline(1)["sum"] == sum(values)


@pytest.mark.parametrize(
    ("function", "dtype", "values"),
    [
        (F.SUM, ValueType.INT32, (2**31 - 1, 1)),
        (F.MAX, ValueType.INT32, (2**40, 1)),
        (F.LAST, ValueType.INT32, (1, -(2**31) - 1)),
        (F.LAST, ValueType.UNIX_TIMESTAMP, (1, LAST)),
        (F.MIN, ValueType.UNIX_TIMESTAMP, (1, -LAST)),
    ],
)
def test_a_number_beyond_a_narrower_type_is_null(
    open_world: Any, function: F, dtype: ValueType, values: tuple[int, ...]
) -> None:
    world = open_world({F.COUNT: ValueType.INT64, function: dtype})
    world.push(*values)
    world.push(7, key=2)
    alone, together = world.read(1), world.read(1, 2, 3)
    assert alone.values[function] == [None]
    assert [value is None for value in together.values[function]] == [True, False, True]
    assert alone.values["count"] == [2]
    assert world.offline(1)[function] is None
    assert world.store.wrong.count[f"v:{function}"] == 2


def test_sums_are_right_or_null_whatever_is_added(open_world: Any) -> None:
    rng = np.random.default_rng(5)
    world, edges = open_world(TYPES), [LAST, -LAST, 2**62, -(2**62), 2**53 + 1, -5, 1]
    for _ in range(60):
        values = [int(value) for value in rng.choice(edges, rng.integers(1, 4))]
        world.push(*values, minutes=int(rng.integers(0, 40)), key=int(rng.integers(1, 9)))
    rows = world.read(*range(1, 9)).values
    right = 0
    for row, key in enumerate(range(1, 9)):
        exact = world.offline(key)
        assert rows["sum"][row] in (exact["sum"], None)
        right += rows["sum"][row] is not None
        assert rows["count"][row] == exact["count"]
        assert world.read(key).values["sum"] == [rows["sum"][row]]
    assert 0 < right < 8
