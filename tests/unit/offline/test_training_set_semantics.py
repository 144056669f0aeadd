"""Sections 1 to 3 of the semantics, and what Feast 0.67 does differently offline: a test for each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import MICROS, Workshop, at

from tidemill.definitions.catalog import Projection, Schedule, Stream
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError, NotDefinedError
from tidemill.offline.instants import NEVER

HOUR = 3_600_000_000


def ask(*rows: tuple, **columns) -> pl.DataFrame:
    """A spine of (id, time) rows with further columns."""
    base = {"id": [row[0] for row in rows], "event_timestamp": [row[1] for row in rows]}
    return pl.DataFrame({**base, **columns}, schema_overrides={"id": pl.Int64, "event_timestamp": MICROS})


class RecordedRuns:
    """A ledger as materialization keeps it: when runs finished, and what they had seen."""

    def __init__(self, **views: list[tuple[datetime, datetime]]) -> None:
        self._views = views

    def cutoffs(self, view: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self._views.get(view, [])
        to = [np.array([int(item[side].timestamp() * 1e6) for item in rows], np.int64) for side in (0, 1)]
        return to[0], to[1]


# Which row wins


def test_event_and_known_time_count_up_to_and_including_the_request(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(1), at(2)], "known": [at(3), at(4)], "x": [10, 11]})
    spine = ask((1, at(3)), (1, at(3) - timedelta(microseconds=1)), (1, at(4)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [10, None, 11]


def test_a_value_exactly_as_old_as_the_ttl_still_counts(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, ttl=timedelta(hours=2))
    spine = ask((1, at(2)), (1, at(2) + timedelta(microseconds=1)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [10, None]


def test_a_ttl_of_zero_never_expires_a_value(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    assert workshop.collect("v:x", ask((1, at(1e5))))["x"].to_list() == [10]


def test_among_equal_event_times_the_one_known_last_wins(workshop: Workshop):
    workshop.simple({"id": [1, 1, 1], "event": [at(1)] * 3, "known": [at(3), at(2), at(9)], "x": [10, 11, 12]})
    assert workshop.collect("v:x", ask((1, at(5)), (1, at(2)), (1, at(9))))["x"].to_list() == [10, 11, 12]


def test_among_equal_times_the_last_position_wins(workshop: Workshop):
    workshop.simple({"id": [1] * 50, "event": [at(1)] * 50, "known": [at(2)] * 50, "x": list(range(50))})
    assert workshop.collect("v:x", ask((1, at(5))))["x"].to_list() == [49]


def test_a_null_known_time_loses_a_tie_and_hides_nothing(workshop: Workshop):
    rows = pl.DataFrame({"id": [1, 1, 2], "event": [at(1)] * 3, "known": [at(2), None, None], "x": [10, 11, 12]})
    workshop.simple(rows)
    assert workshop.collect("v:x", ask((1, at(5)), (2, at(5))))["x"].to_list() == [10, 12]


def test_a_correction_is_seen_only_from_when_it_was_known(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(1), at(1)], "known": [at(1), at(5)], "x": [10, 99]})
    assert workshop.collect("v:x", ask((1, at(4)), (1, at(6))))["x"].to_list() == [10, 99]


def test_rows_not_known_yet_are_passed_over_however_many_there_are(workshop: Workshop):
    events = [at(hour) for hour in range(200)]
    workshop.simple({"id": [1] * 200, "event": events, "known": [at(0)] + [at(1000)] * 199, "x": list(range(200))})
    assert workshop.collect("v:x", ask((1, at(500)), (1, at(1000))))["x"].to_list() == [0, 199]


def test_without_the_known_filter_known_times_only_break_ties(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(1), at(1)], "known": [at(50), at(60)], "x": [10, 11]})
    assert workshop.collect("v:x", ask((1, at(2))), filter_known=False)["x"].to_list() == [11]
    assert workshop.collect("v:x", ask((1, at(2))))["x"].to_list() == [None]


def test_null_keys_match_nothing_even_null_keys(workshop: Workshop):
    workshop.simple({"id": [None, 1], "event": [at(0)] * 2, "x": [10, 11]})
    assert workshop.collect("v:x", ask((None, at(1)), (1, at(1))))["x"].to_list() == [None, 11]


def test_rows_of_the_source_without_an_event_time_never_win(workshop: Workshop):
    rows = pl.DataFrame({"id": [1, 1], "event": [at(0), None], "x": [10, 11]})
    workshop.simple(rows)
    assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [10]


def test_a_spine_column_named_like_the_sources_timestamp_is_left_alone(workshop: Workshop):
    """Feast takes such a column for the feature's time, which leaks the future."""
    workshop.simple({"id": [1, 1], "event": [at(0), at(5)], "x": [10, 11]})
    spine = ask((1, at(1)), event=[at(9)], known=[at(9)])
    assert workshop.collect("v:x", spine).rows() == [(1, at(1), at(9), at(9), 10)]


# One row for each row


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


# Types survive


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


# Times in every shape


@pytest.mark.parametrize(
    "dtype",
    ["timestamp[ns, tz=UTC]", "timestamp[ns]", "timestamp[us, tz=America/New_York]", "timestamp[ms]", "timestamp[s]"],
)
def test_a_source_may_hold_its_times_in_any_unit_and_zone(workshop: Workshop, dtype: str):
    unit, zone = dtype.removeprefix("timestamp[").removesuffix("]").partition(", tz=")[::2]
    times = pa.array([at(0), at(1)], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC"))
    times = times.cast(pa.int64()).cast(pa.timestamp(unit, zone or None))
    table = pa.table({"id": [1, 1], "event": times, "known": times, "x": [10, 11]})
    pq.write_table(table, workshop.root / "s.parquet")
    workshop.view("v", workshop.source("s", known_field="known"), {"x": ValueType.INT64})
    assert workshop.collect("v:x", ask((1, at(0.5)), (1, at(1))))["x"].to_list() == [10, 11]
    assert workshop.store.latest("v", end=at(0.5)).rows() == [(1, 10, at(0), at(0))]
    assert workshop.store.scan("s").collect()["event"].to_list() == [at(0), at(1)]


def test_nothing_is_truncated_before_nanoseconds_are_compared(workshop: Workshop):
    base = int(at(0).timestamp()) * 10**9
    times = pa.array([base, base + 1], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"id": [1, 1], "event": times, "x": [10, 11]}), workshop.root / "s.parquet")
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64})
    micros = ask((1, at(0)), (1, at(0) + timedelta(microseconds=1)))
    assert workshop.collect("v:x", micros)["x"].to_list() == [10, 11]
    nanos = pl.DataFrame({"id": [1, 1, 1], "t": pl.Series([base - 1, base, base + 1]).cast(pl.Datetime("ns", "UTC"))})
    assert workshop.collect("v:x", nanos)["x"].to_list() == [None, 10, 11]


def test_files_of_one_source_may_differ_in_units(workshop: Workshop):
    folder = workshop.root / "s"
    folder.mkdir()
    for number, unit in enumerate(["s", "ms", "us", "ns"]):
        times = pa.array([at(number)], pa.timestamp("us")).cast(pa.timestamp(unit))
        pq.write_table(pa.table({"id": [1], "event": times, "x": [number]}), folder / f"{number}.parquet")
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    spine = ask(*((1, at(hour + 0.5)) for hour in range(4)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [0, 1, 2, 3]
    assert workshop.store.scan("s").collect()["event"].to_list() == [at(hour) for hour in range(4)]


def test_a_spine_may_hold_text_with_mixed_offsets(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(0), at(1)], "x": [10, 11]})
    texts = ["2024-01-01T02:00:00+02:00", "2024-01-01T00:59:59Z", "2024-01-01 01:00:00", "2023-12-31T20:00:00-05:00"]
    spine = pl.DataFrame({"id": [1] * 4, "event_timestamp": texts})
    found = workshop.collect("v:x", spine)
    assert found["x"].to_list() == [10, 10, 11, 11]
    assert found["event_timestamp"].to_list() == texts


def test_a_spine_may_hold_dates(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(0), at(24)], "x": [10, 11]})
    spine = pl.DataFrame({"id": [1, 1], "day": [date(2024, 1, 1), date(2024, 1, 2)]})
    assert workshop.collect("v:x", spine, time_column="day")["x"].to_list() == [10, 11]


def test_a_pandas_spine_may_mix_zones(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(0), at(1)], "x": [10, 11]})
    times = [datetime(2024, 1, 1, 3, tzinfo=timezone(timedelta(hours=2))), at(0.5), datetime(2024, 1, 1, 0, 30)]
    spine = pd.DataFrame({"id": [1, 1, 1], "event_timestamp": pd.Series(times, dtype=object)})
    assert workshop.collect("v:x", spine)["x"].to_list() == [11, 10, 10]


def test_naive_times_are_utc_whatever_the_process_zone(workshop: Workshop):
    workshop.simple(
        pl.DataFrame({"id": [1, 1], "event": [datetime(2024, 1, 1, 0), datetime(2024, 1, 1, 1)], "x": [10, 11]})
    )
    spine = pl.DataFrame({"id": [1], "event_timestamp": [datetime(2024, 1, 1, 0, 30)]})
    had = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    try:
        assert workshop.collect("v:x", spine)["x"].to_list() == [10]
        assert workshop.store.latest("v", end=at(0.5))["x"].to_list() == [10]
    finally:
        os.environ.pop("TZ") if had is None else os.environ.update(TZ=had)
        time.tzset()


def test_source_times_may_be_text_or_dates(workshop: Workshop):
    workshop.simple(
        pl.DataFrame({"id": [1, 1], "event": ["2024-01-01T00:00:00Z", "2024-01-01T05:00:00+04:00"], "x": [1, 2]})
    )
    other = workshop.source(
        "t", pl.DataFrame({"id": [1, 1], "event": [date(2024, 1, 1), date(2024, 1, 2)], "y": [3, 4]})
    )
    workshop.view("w", other, {"y": ValueType.INT64})
    assert workshop.collect(["v:x", "w:y"], ask((1, at(0.5)), (1, at(24)))).select("x", "y").rows() == [(1, 3), (2, 4)]


# Sources in every shape


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


def test_a_folder_that_holds_no_file_yet_answers_nulls(workshop: Workshop):
    (workshop.root / "s").mkdir()
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [None]


# Spines in every shape


def test_a_spine_may_be_polars_pandas_arrow_a_path_or_sql(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    spine = ask((2, at(1)), (1, at(1)))
    spine.write_parquet(workshop.root / "spine.parquet")
    sql = "SELECT id, event AS event_timestamp FROM s ORDER BY id DESC"
    shapes = [
        spine,
        spine.lazy(),
        spine.to_pandas(),
        spine.to_arrow(),
        "spine.parquet",
        workshop.root / "spine.parquet",
        sql,
    ]
    for shape in shapes:
        assert workshop.collect("v:x", shape)["x"].to_list() == [20, 10], type(shape)


def test_pandas_keys_with_a_missing_one_are_floats_and_still_match(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    spine = pd.DataFrame({"id": [2, None, 1], "event_timestamp": [at(1)] * 3})
    assert workshop.collect("v:x", spine)["x"].to_list() == [20, None, 10]


def test_spine_columns_come_back_untouched(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    spine = pl.DataFrame(
        {
            "id": pl.Series([1], dtype=pl.Int16),
            "event_timestamp": pl.Series([at(1)]).dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms"),
            "tags": [["a", None]],
            "kind": pl.Series(["k"], dtype=pl.Categorical),
            "nothing": [None],
        }
    )
    assert workshop.collect("v:x", spine).select(spine.columns).equals(spine, null_equal=True)
    assert workshop.collect("v:x", spine).select(spine.columns).schema == spine.schema


# Aliases, maps and names


def test_one_view_may_be_asked_twice_by_different_keys(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    workshop.service(
        "both",
        Projection(view="v", features=("x",), alias="from", join_key_map=(("id", "origin"),)),
        Projection(view="v", features=("x",), alias="to", join_key_map=(("id", "destination"),)),
    )
    spine = pl.DataFrame({"origin": [1, 2], "destination": [2, 1], "event_timestamp": [at(1)] * 2})
    found = workshop.collect("both", spine, full_feature_names=True)
    assert found.select("from__x", "to__x").rows() == [(10, 20), (20, 10)]
    with pytest.raises(DefinitionError, match="full_feature_names"):
        workshop.collect("both", spine)


def test_join_keys_may_be_swapped_by_a_map(workshop: Workshop):
    rows = {"a": [1, 2], "b": [2, 1], "event": [at(0)] * 2, "x": [12, 21]}
    workshop.view(
        "v", workshop.source("s", rows), {"x": ValueType.INT64}, keys={"a": ValueType.INT64, "b": ValueType.INT64}
    )
    workshop.service("swapped", Projection(view="v", features=("x",), join_key_map=(("a", "b"), ("b", "a"))))
    spine = pl.DataFrame({"a": [1], "b": [2], "event_timestamp": [at(1)]})
    assert workshop.collect("v:x", spine)["x"].to_list() == [12]
    assert workshop.collect("swapped", spine)["x"].to_list() == [21]


def test_a_misspelt_feature_is_answered_with_the_likely_one(workshop: Workshop):
    workshop.view(
        "weather", workshop.source("s", {"id": [1], "event": [at(0)], "wind": [1]}), {"wind": ValueType.INT64}
    )
    spine = ask((1, at(1)))
    with pytest.raises(NotDefinedError, match="Did you mean 'wind'"):
        workshop.collect("weather:wnd", spine)
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        workshop.collect("wether:wind", spine)


# Served mode


def test_served_mode_sees_what_the_newest_finished_run_had_seen(workshop: Workshop):
    events = [at(hour) for hour in range(10)]
    workshop.simple({"id": [1] * 10, "event": events, "x": list(range(10))}, schedule="0 * * * *")
    workshop.ledger = RecordedRuns(v=[(at(3.1), at(3)), (at(6.2), at(6))])
    spine = ask((1, at(3.1)), (1, at(6.1)), (1, at(6.2)), (1, at(9)))
    assert workshop.collect("v:x", spine, mode="served")["x"].to_list() == [3, 3, 6, 6]
    assert workshop.collect("v:x", spine, mode="event")["x"].to_list() == [3, 6, 6, 9]


def test_before_the_ledger_begins_the_schedules_ticks_stand_for_runs(workshop: Workshop):
    events = [at(hour / 2) for hour in range(20)]
    schedule = Schedule(cron="0 * * * *", lag=timedelta(minutes=10))
    workshop.simple({"id": [1] * 20, "event": events, "x": list(range(20))}, schedule=schedule)
    spine = ask((1, at(2.1)), (1, at(2.5)), (1, at(2 + 1 / 6)))
    assert workshop.collect("v:x", spine, mode="served")["x"].to_list() == [2, 4, 4]
    workshop.ledger = RecordedRuns(v=[(at(6.2), at(6))])
    later = ask((1, at(2.5)), (1, at(9)))
    assert workshop.collect("v:x", later, mode="served")["x"].to_list() == [4, 12]


def test_served_mode_hides_what_became_known_after_the_run(workshop: Workshop):
    rows = {"id": [1, 1], "event": [at(0), at(1)], "known": [at(0), at(2.5)], "x": [10, 11]}
    workshop.simple(rows, schedule="0 * * * *")
    workshop.ledger = RecordedRuns(v=[(at(2), at(2)), (at(3), at(3))])
    spine = ask((1, at(2.9)), (1, at(3)))
    assert workshop.collect("v:x", spine, mode="served")["x"].to_list() == [10, 11]


def test_in_served_mode_the_ttl_is_still_counted_from_the_request(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, schedule="0 0 * * *", ttl=timedelta(hours=5))
    assert workshop.collect("v:x", ask((1, at(5)), (1, at(5.1))), mode="served")["x"].to_list() == [10, None]


def test_nothing_was_served_before_the_first_run(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, schedule=Schedule(every=timedelta(days=30)))
    assert workshop.store.cutoffs("v", np.array([0], np.int64)).tolist() == [0]
    workshop.ledger = RecordedRuns(v=[(at(9), at(9))])
    found = workshop.collect("v:x", ask((1, at(9)), (1, at(8))), mode="served")
    assert found["x"].to_list()[0] == 10


def test_pushed_views_and_views_without_a_schedule_are_as_fresh_as_the_request(workshop: Workshop):
    workshop.streams.append(Stream(name="p", kind="push", source="s"))
    workshop.simple({"id": [1, 1], "event": [at(0), at(1)], "x": [10, 11]}, stream="p")
    other = workshop.source("t", {"id": [1, 1], "event": [at(0), at(1)], "y": [10, 11]})
    workshop.view("w", other, {"y": ValueType.INT64})
    asked = np.array([5, NEVER], np.int64)
    assert workshop.store.cutoffs("v", asked).tolist() == asked.tolist()
    found = workshop.collect(["v:x", "w:y"], ask((1, at(1))), mode="served")
    assert found.select("x", "y").rows() == [(11, 11)]


def test_an_unknown_mode_is_refused(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    with pytest.raises(InputError, match="served"):
        workshop.collect("v:x", ask((1, at(1))), mode="online")


def test_values_at_takes_cutoffs_of_the_callers(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(0), at(2)], "x": [10, 11]}, ttl=timedelta(hours=3))
    micros = lambda hours: int(at(hours).timestamp() * 1e6)  # noqa: E731
    keys = pl.DataFrame({"id": [1, 1, 1]})
    asked = np.array([micros(3), micros(3), micros(4)])
    found = workshop.store.values_at("v", keys, asked, np.array([micros(1), micros(3), micros(1)]))
    assert found.rows() == [(10, at(0)), (11, at(2)), (None, None)]


# What a run writes


def test_latest_takes_the_interval_open_at_its_start(workshop: Workshop):
    workshop.simple({"id": [1, 2, 3], "event": [at(1), at(2), at(3)], "x": [10, 20, 30]})
    found = workshop.store.latest("v", start=at(1), end=at(2))
    assert found.rows() == [(2, 20, at(2), at(2))]


def test_latest_finds_late_rows_by_their_known_time(workshop: Workshop):
    rows = {"id": [1, 2, 3], "event": [at(1), at(1), at(6)], "known": [at(1), at(5.5), at(9)], "x": [10, 20, 30]}
    workshop.simple(rows)
    found = workshop.store.latest("v", start=at(5), end=at(7), known_after=at(5))
    assert found.rows() == [(2, 20, at(1), at(5.5))]


def test_latest_of_equal_times_is_the_one_known_last_then_the_last_position(workshop: Workshop):
    rows = {"id": [1, 1, 1], "event": [at(1)] * 3, "known": [at(3), at(3), at(2)], "x": [10, 11, 12]}
    workshop.simple(rows)
    assert workshop.store.latest("v", end=at(9))["x"].to_list() == [11]


# Writing


def test_appending_leaves_what_is_there_untouched(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    file = workshop.root / "s.parquet"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    workshop.store.append("s", pl.DataFrame({"x": [11], "id": [1], "event": [at(1)]}))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert workshop.collect("v:x", ask((1, at(2))))["x"].to_list() == [11]


def test_appending_under_a_name_twice_counts_once(workshop: Workshop):
    (workshop.root / "s").mkdir()
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    rows = pl.DataFrame({"id": [1], "event": [at(0)], "x": [10]})
    first = workshop.store.append("s", rows, name="2024-01-01")
    assert workshop.store.append("s", rows, name="2024-01-01") == first
    assert workshop.store.scan("s").collect().height == 1
    assert [path.name for path in (workshop.root / "s").iterdir()] == ["2024-01-01.parquet"]


@pytest.mark.parametrize(
    "rows",
    [
        {"id": [1], "event": [at(0)]},
        {"id": [1], "event": [at(0)], "x": [1], "extra": [1]},
        {"id": ["a"], "event": [at(0)], "x": [1]},
        {"id": [1], "event": [at(0)], "x": [1.5]},
    ],
)
def test_rows_that_do_not_fit_a_source_are_refused_and_leave_nothing(workshop: Workshop, rows: dict):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    before = sorted(workshop.root.rglob("*"))
    with pytest.raises(InputError):
        workshop.store.append("s", rows)
    assert sorted(workshop.root.rglob("*")) == before


def test_appending_to_a_partitioned_folder_writes_into_its_partitions(workshop: Workshop):
    for year in (2023, 2024):
        folder = workshop.root / "s" / f"year={year}"
        folder.mkdir(parents=True)
        pl.DataFrame({"id": [1], "event": [at(0)], "x": [year]}).write_parquet(folder / "a.parquet")
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64, "year": ValueType.INT64})
    workshop.store.append("s", {"id": [2, 3], "event": [at(1)] * 2, "x": [1, 2], "year": [2024, 2025]})
    spine = ask((2, at(2)), (3, at(2)))
    assert workshop.collect(["v:x", "v:year"], spine).select("x", "year").rows() == [(1, 2024), (2, 2025)]


# Digests


def test_the_same_inputs_have_the_same_digest_in_another_process(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, None]})
    ask((1, at(1)), (2, at(1))).write_parquet(workshop.root / "spine.parquet")
    here = workshop.store.training_set("v:x", "spine.parquet", mode="event").digest
    text = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from workshop import Workshop
from tidemill.definitions.types import ValueType
w = Workshop(Path({str(workshop.root)!r}))
w.view("v", w.source("s"), {{"x": ValueType.INT64}})
print(w.store.training_set("v:x", "spine.parquet", mode="event").digest)
"""
    run = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )
    assert run.stdout.strip() == here


def test_the_digest_tells_null_from_nan_from_zero_and_order(workshop: Workshop):
    from tidemill.offline.content import digest_of_frame

    frames = [
        pl.DataFrame({"x": values}, schema={"x": pl.Float64})
        for values in ([1.0, None], [1.0, float("nan")], [1.0, 0.0], [0.0, 1.0])
    ]
    assert len({digest_of_frame(frame) for frame in frames}) == len(frames)
    assert digest_of_frame(frames[2]) == digest_of_frame(pl.DataFrame({"x": [1.0, -0.0]}))
    lists = pl.DataFrame({"x": [[1, 2], [3]]}), pl.DataFrame({"x": [[1], [2, 3]]})
    assert digest_of_frame(lists[0]) != digest_of_frame(lists[1])


def test_utc_is_the_only_zone_of_what_is_answered(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    found = workshop.store.values_at("v", pl.DataFrame({"id": [1]}), np.array([2**60]), np.array([2**60]))
    assert found["__event_time"].dtype == MICROS
    assert found["__event_time"][0].tzinfo is not None
    assert found["__event_time"][0].astimezone(UTC) == at(0)
