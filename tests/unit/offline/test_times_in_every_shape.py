"""Section 1 of the semantics: instants in any unit, zone and type compare exactly, and are UTC."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import MICROS, Workshop, ask, at

from tidemill.definitions.types import ValueType


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


def test_text_may_be_finer_than_a_microsecond_and_reach_beyond_nanoseconds(workshop: Workshop):
    texts = ["2024-01-01T00:00:00.000000900Z", "2024-01-01T01:00:00Z", "9999-12-31T00:00:00Z", "0001-01-01T00:00:00Z"]
    workshop.simple(pl.DataFrame({"id": [1, 1, 1, 2], "event": texts, "x": [10, 11, 12, 13]}))
    assert workshop.collect("v:x", ask((1, at(0)), (1, at(1)), (2, at(0))))["x"].to_list() == [None, 11, 13]
    asked = ["2024-01-01T00:00:00.0000008Z", "2024-01-01T00:00:00,000000900Z", "2024-01-01T00:59:59.999999999Z"]
    spine = pl.DataFrame({"id": [1] * 3, "event_timestamp": asked})
    assert workshop.collect("v:x", spine)["x"].to_list() == [None, 10, 10]


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


def test_files_of_one_source_may_differ_in_zones_and_in_having_any(workshop: Workshop):
    folder = workshop.root / "s"
    folder.mkdir()
    for number, zone in enumerate(["UTC", None, "America/New_York", "Asia/Kolkata"]):
        times = pa.array([at(number)], pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.timestamp("us", zone))
        pq.write_table(pa.table({"id": [1], "event": times, "x": [number]}), folder / f"{number}.parquet")
    days = pa.table({"id": [1], "event": pa.array([date(2024, 1, 2)]), "x": [24]})
    pq.write_table(days, folder / "days.parquet")
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    spine = ask(*((1, at(hour + 0.5)) for hour in range(4)), (1, at(24)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [0, 1, 2, 3, 24]
    assert workshop.store.latest("v", end=at(3))["x"].to_list() == [3]
    assert workshop.store.scan("s").collect()["event"].to_list() == [*(at(hour) for hour in range(4)), at(24)]


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


def test_a_pandas_spine_of_objects_may_hold_dates_and_nanoseconds(workshop: Workshop):
    base = int(at(1).timestamp()) * 10**9
    workshop.simple({"id": [1, 1], "event": [at(0), at(1)], "x": [10, 11]})
    times = [date(2024, 1, 2), pd.Timestamp(base - 1, tz="UTC"), pd.Timestamp(base + 1, tz="Asia/Tokyo")]
    found = workshop.collect("v:x", pd.DataFrame({"id": [1] * 3, "event_timestamp": pd.Series(times, dtype=object)}))
    assert found["x"].to_list() == [11, 10, 11]
    assert found["event_timestamp"].to_physical().to_list() == [int(at(24).timestamp()) * 10**9, base - 1, base + 1]


@pytest.mark.parametrize("zone", ["+05:30", "-03:30"])
def test_zones_may_be_offsets_that_have_no_name(workshop: Workshop, zone: str):
    times = pa.array([at(0), at(1)], pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.timestamp("us", zone))
    table = pa.table({"id": [1, 1], "event": times, "x": [10, 11], "when": times})
    pq.write_table(table, workshop.root / "s.parquet")
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64, "when": ValueType.UNIX_TIMESTAMP})
    asked = pa.table({"id": [1, 1], "event_timestamp": times})
    pq.write_table(asked, workshop.root / "asked.parquet")
    for spine in (asked, asked.to_pandas(), "asked.parquet", "SELECT id, event FROM s"):
        found = workshop.collect(["v:x", "v:when"], spine)
        assert found.select("x", "when").rows() == [(10, at(0)), (11, at(1))]
    assert workshop.store.scan("s").collect()["event"].to_list() == [at(0), at(1)]


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


def test_utc_is_the_only_zone_of_what_is_answered(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    found = workshop.store.values_at("v", pl.DataFrame({"id": [1]}), np.array([2**60]), np.array([2**60]))
    assert found["__event_time"].dtype == MICROS
    assert found["__event_time"][0].tzinfo is not None
    assert found["__event_time"][0].astimezone(UTC) == at(0)
