"""What the materialization benchmark loads, and the definitions of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

T0 = datetime(2024, 5, 1, tzinfo=UTC)
END = T0 + timedelta(hours=2)
ROUND = timedelta(hours=3)
"""From one round of changes to the next."""
FEATURES = [f"f{number}" for number in range(10)]
WINDOWED = ["orders", "amount", "mean_amount", "largest"]
_ENTITIES_AT_ONCE = 1_000_000


def write_history(file: Path, entities: int) -> None:
    """One row for each entity, and a correction for 2 % of them."""
    frame = _rows(np.random.default_rng(5).permutation(entities), first=0.0, last=1.0, seed=5)
    fixed = frame.sample(fraction=0.02, seed=5).with_columns(
        pl.col("created") + pl.duration(minutes=30), pl.col("f1") + 1
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.concat([frame, fixed]).sort("event_timestamp").write_parquet(file, row_group_size=100_000)


def write_large_history(file: Path, entities: int) -> None:
    """One row for each entity in order of time, made in pieces: the benchmark itself must not need much memory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer: pq.ParquetWriter | None = None
    for frame in large_history(entities):
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table, row_group_size=100_000)
    if writer is not None:
        writer.close()


def large_history(entities: int) -> Iterator[pl.DataFrame]:
    pieces = -(-entities // _ENTITIES_AT_ONCE)
    for piece in range(pieces):
        ids = np.arange(piece, entities, pieces)  # every piece has entities from everywhere
        yield _rows(ids, first=piece / pieces, last=(piece + 1) / pieces, seed=piece).sort("event_timestamp")


def _rows(entities: np.ndarray, *, first: float, last: float, seed: int) -> pl.DataFrame:
    """A row for each entity, at some second of a part of the hour from `T0`."""
    random, count = np.random.default_rng(seed), len(entities)
    seconds = random.integers(int(3_600 * first), int(3_600 * last), count)
    values = {
        name: random.random(count) if place % 2 else random.integers(0, 1_000_000, count)
        for place, name in enumerate(FEATURES)
    }
    return pl.DataFrame({"driver_id": entities} | values).with_columns(
        (pl.lit(T0) + pl.duration(seconds=pl.Series(seconds))).alias("event_timestamp"),
        (pl.lit(T0) + pl.duration(seconds=pl.Series(seconds))).alias("created"),
    )


def write_changes(folder: Path, share: float) -> datetime:
    """Some entities change, a round after what they were last. Returns when all of that is known."""
    frame = pl.read_parquet(folder / "stats.parquet")
    newest = frame.sort("created").unique("driver_id", keep="last", maintain_order=True)
    changed = newest.sample(fraction=share, seed=9).with_columns(
        pl.col("event_timestamp") + ROUND, pl.col("created") + ROUND, pl.col("f3") + 1
    )
    pl.concat([frame, changed.sort("event_timestamp")]).write_parquet(folder / "stats.parquet", row_group_size=100_000)
    rounds = (changed["created"].max() - T0) // ROUND  # type: ignore[operator] - there are some
    return END + rounds * ROUND


def write_orders(file: Path, events: int, entities: int) -> None:
    """Events of a day, in order of time, for entities drawn evenly."""
    random = np.random.default_rng(7)
    seconds = np.sort(random.integers(0, 86_400, events))
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {"driver_id": random.integers(0, entities, events), "amount": random.integers(1, 1_000, events)}
    ).with_columns(
        (pl.lit(END) - pl.duration(seconds=pl.Series(86_400 - seconds))).alias("event_timestamp")
    ).write_parquet(file, row_group_size=100_000)


def windows_of(file: Path, entities: list[int]) -> dict[str, list[Any]]:
    """What the windowed view has to say about some entities, computed by a plain group."""
    inside = pl.scan_parquet(file).filter(
        pl.col("event_timestamp") >= END - timedelta(hours=24), pl.col("driver_id").is_in(entities)
    )
    amount = pl.col("amount")
    columns = [pl.len(), amount.sum(), amount.mean(), amount.max()]
    grouped = inside.group_by("driver_id").agg(
        column.alias(name) for name, column in zip(WINDOWED, columns, strict=True)
    )
    asked = pl.DataFrame({"driver_id": entities}, schema={"driver_id": pl.Int64})
    return asked.join(grouped.collect(), on="driver_id", how="left", maintain_order="left").to_dict(as_series=False)


def make_catalog():
    from tidemill.definitions import (
        Aggregation,
        AggregationFunction,
        Catalog,
        Entity,
        Feature,
        Projection,
        Service,
        Source,
        ValueType,
        View,
    )

    day = timedelta(hours=24)
    functions = [AggregationFunction.COUNT, AggregationFunction.SUM, AggregationFunction.MEAN, AggregationFunction.MAX]
    types = [ValueType.INT64, ValueType.INT64, ValueType.DOUBLE, ValueType.INT64]
    stats = View(
        name="stats",
        entities=("driver",),
        join_keys=("driver_id",),
        features=tuple(
            Feature(name=name, dtype=ValueType.DOUBLE if place % 2 else ValueType.INT64)
            for place, name in enumerate(FEATURES)
        ),
        source="stats",
    )
    windows = View(
        name="windows",
        entities=("driver",),
        join_keys=("driver_id",),
        features=tuple(Feature(name=name, dtype=dtype) for name, dtype in zip(WINDOWED, types, strict=True)),
        source="orders",
        aggregations=tuple(
            Aggregation(name=name, function=function, column="amount", window=day, hop=timedelta(hours=1))
            for name, function in zip(WINDOWED, functions, strict=True)
        ),
    )
    return Catalog(
        project="bench",
        entities=(Entity(name="driver", join_key="driver_id", dtype=ValueType.INT64),),
        sources=(
            Source(name="stats", path="stats.parquet", timestamp_field="event_timestamp", known_field="created"),
            Source(name="orders", path="orders.parquet", timestamp_field="event_timestamp"),
        ),
        views=(stats, windows),
        services=(
            Service(name="all", projections=(Projection(view="stats", features=tuple(FEATURES)),)),
            Service(name="day", projections=(Projection(view="windows", features=tuple(WINDOWED)),)),
        ),
    )


def open_project(root: Path, address: str, **settings: Any):
    from tidemill.clock import ManualClock
    from tidemill.project import Project
    from tidemill.settings import Settings

    (root / "feature_store.yaml").write_text("project: bench\n")
    project = Project(root, settings=Settings(redis_url=address, **settings), name="bench", clock=ManualClock(END))
    project.catalogs.add(make_catalog(), at=END)
    return project
