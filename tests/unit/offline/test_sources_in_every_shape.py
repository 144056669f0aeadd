"""Wherever and however a source lies, it answers the same (section 8 of the semantics)."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import MICROS, Workshop, ask, at

from tidemill.definitions.catalog import Aggregation, AggregationFunction
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError


def test_relative_paths_start_at_the_projects_folder(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    before = Path.cwd()
    os.chdir(elsewhere)
    try:
        assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [10]
    finally:
        os.chdir(before)


def test_feature_columns_may_have_any_name(workshop: Workshop):
    """Feast's join breaks on `rn` and on names that end in `_y`."""
    names = ["rn", "x_y", "__index", "code", "position", "event_timestamp_right", "key"]
    rows = {"id": [1], "event": [at(0)], **{name: [number] for number, name in enumerate(names)}}
    workshop.view("v", workshop.source("s", rows), dict.fromkeys(names, ValueType.INT64))
    found = workshop.collect([f"v:{name}" for name in names], ask((1, at(1))))
    assert found.row(0)[2:] == tuple(range(len(names)))


def test_field_mapping_names_columns_for_the_definitions(workshop: Workshop):
    rows = {"k": [1], "ts": [at(0)], "created": [at(0)], "value": [10]}
    mapping = (("k", "id"), ("ts", "event"), ("created", "known"), ("value", "x"))
    source = workshop.source("s", rows, timestamp_field="ts", known_field="created", field_mapping=mapping)
    workshop.view("v", source, {"x": ValueType.INT64})
    assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [10]
    assert workshop.store.scan("s").collect().columns == ["id", "event", "known", "x"]
    assert workshop.store.latest("v", end=at(1)).rows() == [(1, 10, at(0), at(0))]


def test_an_entity_less_view_gives_its_newest_row_to_everybody(workshop: Workshop):
    source = workshop.source("s", {"event": [at(0), at(2)], "x": [10, 11]})
    workshop.view("v", source, {"x": ValueType.INT64}, keys={})
    spine = pl.DataFrame({"event_timestamp": [at(1), at(3), at(-1)]})
    assert workshop.collect("v:x", spine)["x"].to_list() == [10, 11, None]
    assert workshop.store.latest("v", end=at(9)).rows() == [(11, at(2), at(2))]


def test_a_hive_partitioned_folder_is_read_with_its_folders_columns(workshop: Workshop):
    for country, rows in (("de", [1, 2]), ("us", [3])):
        folder = workshop.root / "s" / f"country={country}" / "year=2024"
        folder.mkdir(parents=True)
        pl.DataFrame({"event": [at(0)] * len(rows), "id": rows, "x": rows}).write_parquet(folder / "a.parquet")
    source = workshop.source("s", path="s")
    workshop.view(
        "v",
        source,
        {"x": ValueType.INT64, "year": ValueType.INT64},
        keys={"country": ValueType.STRING, "id": ValueType.INT64},
    )
    spine = pl.DataFrame({"country": ["us", "de", "us"], "id": [3, 2, 1], "event_timestamp": [at(1)] * 3})
    assert workshop.collect(["v:x", "v:year"], spine).select("x", "year").rows() == [(3, 2024), (2, 2024), (None, None)]
    assert sorted(workshop.store.scan("s").collect()["country"].to_list()) == ["de", "de", "us"]


def test_a_number_in_a_folders_name_may_be_a_key(workshop: Workshop):
    for store in ("07", "11"):
        folder = workshop.root / "s" / f"id={store}"
        folder.mkdir(parents=True)
        pl.DataFrame({"event": [at(0)], "x": [int(store)]}).write_parquet(folder / "a.parquet")
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    assert workshop.collect("v:x", ask((11, at(1)), (7, at(1)), (8, at(1))))["x"].to_list() == [11, 7, None]
    assert sorted(workshop.store.latest("v", end=at(1))["id"].to_list()) == [7, 11]


def in_folders(workshop: Workshop, *flags: str) -> None:
    """A source in folders called by a boolean, the rows of each by its place."""
    for number, flag in enumerate(flags):
        folder = workshop.root / "s" / f"b={flag}"
        folder.mkdir(parents=True)
        pl.DataFrame({"event": [at(0)], "id": [number], "x": [number]}).write_parquet(folder / "a.parquet")
    workshop.source("s", path="s")


@pytest.mark.parametrize("names", [("true", "false"), ("True", "False"), ("1", "0")])
def test_a_boolean_in_a_folders_name_may_be_a_key_or_a_feature(workshop: Workshop, names: tuple[str, str]):
    in_folders(workshop, *names, "__HIVE_DEFAULT_PARTITION__")
    source = workshop.sources[0]
    workshop.view("keyed", source, {"x": ValueType.INT64}, keys={"b": ValueType.BOOL})
    workshop.view("told", source, {"b": ValueType.BOOL})
    flags = pl.DataFrame({"b": [False, True, None], "event_timestamp": [at(1)] * 3})
    assert workshop.collect("keyed:x", flags)["x"].to_list() == [1, 0, None]
    assert workshop.collect("told:b", ask((0, at(1)), (1, at(1)), (2, at(1))))["b"].to_list() == [True, False, None]
    assert sorted(workshop.store.latest("keyed", end=at(1)).select("b", "x").rows()) == [(False, 1), (True, 0)]


COUNTED = Aggregation(
    name="n", function=AggregationFunction.COUNT, column="x", window=timedelta(hours=1), hop=timedelta(minutes=5)
)


def test_a_boolean_in_a_folders_name_may_be_the_key_of_windows(workshop: Workshop):
    in_folders(workshop, "true", "false")
    flag = {"b": ValueType.BOOL}
    workshop.view("v", workshop.sources[0], {"n": ValueType.INT64}, keys=flag, aggregations=(COUNTED,))
    flags = pl.DataFrame({"b": [False, True], "event_timestamp": [at(0), at(5)]})
    assert workshop.collect("v:n", flags)["n"].to_list() == [1, 0]


@pytest.mark.parametrize("view", ["keyed", "told", "counted"])
def test_a_folders_name_that_is_no_boolean_is_named(workshop: Workshop, view: str):
    in_folders(workshop, "true", "maybe")
    source, flag = workshop.sources[0], {"b": ValueType.BOOL}
    match view:
        case "keyed":
            workshop.view("v", source, {"x": ValueType.INT64}, keys=flag)
        case "told":
            workshop.view("v", source, flag)
        case _:
            workshop.view("v", source, {"n": ValueType.INT64}, keys=flag, aggregations=(COUNTED,))
    spine = ask((1, at(0)), b=[True]) if view != "told" else ask((1, at(0)))
    feature = {"keyed": "x", "told": "b", "counted": "n"}[view]
    with pytest.raises(SourceError, match=r"source 's'.*'maybe' is neither true nor false"):
        workshop.collect(f"v:{feature}", spine)


def test_a_delta_table_is_read_as_it_stands_now(workshop: Workshop):
    from deltalake import DeltaTable, write_deltalake

    where = str(workshop.root / "s")
    rows = pl.DataFrame({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20], "part": ["a", "b"]})
    write_deltalake(where, rows.to_arrow(), partition_by=["part"])
    write_deltalake(
        where, rows.with_columns(event=pl.lit(at(2)).cast(MICROS), x=pl.col("x") + 1).to_arrow(), mode="append"
    )
    source = workshop.source("s", path="s", file_format="delta")
    workshop.view("v", source, {"x": ValueType.INT64, "part": ValueType.STRING})
    spine = ask((1, at(1)), (2, at(3)))
    assert workshop.collect(["v:x", "v:part"], spine).select("x", "part").rows() == [(10, "a"), (21, "b")]
    DeltaTable(where).delete("part = 'b'")
    assert workshop.collect(["v:x", "v:part"], spine).select("x", "part").rows() == [(10, "a"), (None, None)]
    assert workshop.store.scan("s").collect().height == 2


def test_row_groups_and_files_in_any_order_give_the_same_answer(workshop: Workshop):
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "id": rng.integers(0, 5, 400),
            "event": [at(float(hour)) for hour in rng.integers(0, 60, 400)],
            "x": np.arange(400),
        }
    )
    spine = ask(
        *(
            (int(key), at(float(hour) + 0.5))
            for key, hour in zip(rng.integers(0, 6, 90), rng.integers(-2, 70, 90), strict=True)
        )
    )
    expected = []
    for key, when in spine.rows():
        seen = [row for row in rows.rows() if row[0] == key and row[1] <= when]
        expected.append(max(seen, key=lambda row: (row[1], row[2]))[2] if seen else None)
    whole = workshop.source("s", rows, row_group_size=37)
    workshop.view("v", whole, {"x": ValueType.INT64})
    folder = workshop.root / "t"
    folder.mkdir()
    for number in range(5):
        rows.slice(number * 80, 80).write_parquet(folder / f"{number}.parquet", row_group_size=23)
    workshop.view("w", workshop.source("t", path="t"), {"x": ValueType.INT64})
    assert workshop.collect("v:x", spine)["x"].to_list() == expected
    assert workshop.collect("w:x", spine)["x"].to_list() == expected


def test_an_empty_source_answers_nulls_of_the_declared_types(workshop: Workshop):
    rows = pl.DataFrame({"id": [], "event": [], "x": []}, schema={"id": pl.Int64, "event": MICROS, "x": pl.Int64})
    workshop.simple(rows)
    found = workshop.collect("v:x", ask((1, at(1))))
    assert found["x"].to_list() == [None]
    assert found["x"].dtype == pl.Int64
    assert workshop.store.latest("v", end=at(1)).height == 0


def test_an_empty_spine_answers_no_rows_of_the_declared_types(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    found = workshop.collect("v:x", ask())
    assert found.height == 0
    assert found.schema == {"id": pl.Int64, "event_timestamp": MICROS, "x": pl.Int64}


def test_an_empty_pandas_spine_need_not_say_its_types(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [7]})
    for spine in (pd.DataFrame({"id": [], "event_timestamp": []}), pd.DataFrame(columns=["id", "event_timestamp"])):
        found = workshop.collect("v:x", spine)
        assert found.height == 0
        assert found["x"].dtype == pl.Int64


def test_a_folder_that_holds_no_file_yet_answers_nulls(workshop: Workshop):
    (workshop.root / "s").mkdir()
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [None]


def test_files_of_one_source_may_keep_their_keys_in_different_ways(workshop: Workshop):
    folder = workshop.root / "s"
    folder.mkdir()
    keys = [
        (pa.array([1], pa.int64()), pa.array(["a"])),
        (pa.array([2], pa.int16()), pa.array(["b"]).dictionary_encode()),
        (pa.array([3], pa.uint8()), pa.array(["c"], pa.large_string())),
        (pa.nulls(1), pa.nulls(1)),
    ]
    for number, (ids, names) in enumerate(keys):
        table = pa.table({"id": ids, "name": names, "event": pa.array([at(0)]), "x": [number]})
        pq.write_table(table, folder / f"{number}.parquet")
    types = {"id": ValueType.INT64, "name": ValueType.STRING}
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64}, keys=types)
    found = workshop.collect("v:x", ask((1, at(1)), (2, at(1)), (3, at(1)), (4, at(1)), name=["a", "b", "c", "d"]))
    assert found["x"].to_list() == [0, 1, 2, None]
    assert workshop.store.latest("v", end=at(1))["x"].to_list() == [0, 1, 2]


def test_a_list_that_is_empty_in_a_whole_file_is_a_list(workshop: Workshop):
    folder = workshop.root / "s"
    folder.mkdir()
    for number, values in enumerate([pa.array([[]], pa.list_(pa.null())), pa.array([[1, None]]), pa.nulls(1)]):
        pq.write_table(
            pa.table({"id": [number], "event": pa.array([at(0)]), "x": values}), folder / f"{number}.parquet"
        )
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64_LIST})
    spine = ask((0, at(1)), (1, at(1)), (2, at(1)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [[], [1, None], None]
    assert workshop.store.latest("v", end=at(1))["x"].to_list() == [[], [1, None], None]
    assert workshop.store.scan("s").collect()["x"].to_list() == [[], [1, None], None]


def test_whole_numbers_that_are_declared_as_times_are_seconds_as_with_feast(workshop: Workshop):
    workshop.view("v", workshop.source("s", {"id": [1], "event": [at(0)], "x": [60]}), {"x": ValueType.UNIX_TIMESTAMP})
    minute = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [minute]
    assert workshop.store.latest("v", end=at(1))["x"].to_list() == [minute]
