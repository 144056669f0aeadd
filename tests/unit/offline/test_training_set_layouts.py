"""Training sets against the oracle: however a source lies on disk, a spine is handed over, and keys are named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Row, winner
from workshop import EPOCH, MICROS, Workshop

from tidemill.definitions.catalog import Projection, Source
from tidemill.definitions.types import ValueType

START = int(EPOCH.timestamp()) * 10**6
KEYS = {"a": ValueType.INT64, "b": ValueType.INT64}
STORED = {"a": "key_a", "b": "key_b", "event": "ts", "known": "made", "x": "value"}
TTL = 4

rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 6), st.integers(0, 8), st.integers(0, 99)),
    max_size=20,
)
spines = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-1, 9)), min_size=1, max_size=8)
SHAPES: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "polars": lambda frame, _: frame,
    "lazy": lambda frame, _: frame.lazy(),
    "pandas": lambda frame, _: frame.to_pandas(),
    "arrow": lambda frame, _: frame.to_arrow(),
    "path": lambda frame, root: frame.write_parquet(root / "spine.parquet") or "spine.parquet",
    "sql": lambda frame, root: frame.write_parquet(root / "asked.parquet") or "SELECT * FROM asked",
}


def instants(ticks: list[int]) -> pl.Series:
    return pl.Series([START + tick for tick in ticks], dtype=pl.Int64).cast(MICROS)


def lay(workshop: Workshop, found: list[tuple], layout: str, mapped: bool) -> tuple[Source, list[tuple]]:
    """Write the rows; the source, and the rows in the order it then has them."""
    if layout == "hive":
        found = sorted(found, key=lambda row: row[1])
    frame = pl.DataFrame(
        {
            "a": pl.Series([row[0] for row in found], dtype=pl.Int64),
            "b": pl.Series([row[1] for row in found], dtype=pl.Int64),
            "event": instants([row[2] for row in found]),
            "known": instants([row[3] for row in found]),
            "x": pl.Series([row[4] for row in found], dtype=pl.Int64),
        }
    )
    names = STORED if mapped else {}
    options: dict[str, Any] = {
        "timestamp_field": names.get("event", "event"),
        "known_field": names.get("known", "known"),
        "field_mapping": tuple((stored, name) for name, stored in names.items()),
    }
    stored = frame.rename(names)
    where = workshop.root / "data" / "s"
    where.mkdir(parents=True)
    if layout == "delta":
        from deltalake import write_deltalake

        write_deltalake(str(where), stored.to_arrow())
        options["file_format"] = "delta"
    elif layout == "hive":
        part = names.get("b", "b")
        for (value,), some in stored.group_by(part, maintain_order=True):
            (where / f"{part}={value}").mkdir()
            some.drop(part).write_parquet(where / f"{part}={value}" / "0.parquet", row_group_size=2)
        if stored.is_empty():
            (where / f"{part}=0").mkdir()
            stored.drop(part).write_parquet(where / f"{part}=0" / "0.parquet")
    else:
        half = (len(found) + 1) // 2
        stored.head(half).write_parquet(where / "0.parquet", row_group_size=3)
        stored.slice(half).write_parquet(where / "1.parquet", row_group_size=1)
    return workshop.source("s", path="data/s", **options), found


@settings(max_examples=150)
@given(
    found=rows,
    asked=spines,
    layout=st.sampled_from(["folder", "hive", "delta"]),
    mapped=st.booleans(),
    shape=st.sampled_from(list(SHAPES)),
    keyed=st.sampled_from([("a", "b"), ("b", "a"), ("from", "to"), ("a", "a")]),
)
def test_layouts_shapes_and_key_maps_change_no_answer(
    make_workshop: Callable[[], Workshop],
    found: list[tuple],
    asked: list[tuple],
    layout: str,
    mapped: bool,
    shape: str,
    keyed: tuple[str, str],
):
    """`keyed` names the spine's columns that stand for the keys `a` and `b`."""
    workshop = make_workshop()
    source, found = lay(workshop, found, layout, mapped)
    workshop.view("v", source, {"x": ValueType.INT64}, keys=KEYS, ttl=timedelta(microseconds=TTL))
    renamed = tuple((key, column) for key, column in zip(KEYS, keyed, strict=True) if key != column)
    workshop.service(
        "both",
        Projection(view="v", features=("x",), alias="named", join_key_map=renamed),
        Projection(view="v", features=("x",), alias="plain"),
    )
    spine = pl.DataFrame(
        {
            "a": [row[0] for row in asked],
            "b": [row[1] for row in asked],
            "from": [row[1] for row in asked],
            "to": [row[0] for row in asked],
            "event_timestamp": instants([row[2] for row in asked]),
            "row": range(len(asked)),
        }
    )
    if shape == "sql":
        workshop.source("asked", timestamp_field="event_timestamp")
    answer = workshop.collect("both", SHAPES[shape](spine, workshop.root), full_feature_names=True)

    assert answer["row"].to_list() == list(range(len(asked)))
    assert answer.columns == [*spine.columns, "named__x", "plain__x"]
    history = [Row(keys=row[:2], event=row[2], known=row[3], values={"x": row[4]}) for row in found]
    for alias, columns in (("named", keyed), ("plain", ("a", "b"))):
        expected = []
        for row in spine.iter_rows(named=True):
            when = asked[row["row"]][2]
            place = winner(history, tuple(row[name] for name in columns), at=when, cutoff=when, ttl=TTL)
            expected.append(None if place is None else history[place].values["x"])
        assert answer[f"{alias}__x"].to_list() == expected
