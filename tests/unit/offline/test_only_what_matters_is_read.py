"""Columns, row groups and files that cannot matter are never read: their pages are damaged here, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from workshop import Workshop, at

from tidemill.definitions.catalog import Aggregation, AggregationFunction
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError

ROWS = 500


def damage(file: Path, *, groups: Iterable[int] | None = None, columns: Iterable[str] | None = None) -> None:
    """Overwrite the pages of some row groups and columns; the footer with its statistics stays whole."""
    metadata = pq.ParquetFile(file).metadata
    raw = bytearray(file.read_bytes())
    for group in range(metadata.num_row_groups) if groups is None else groups:
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            if columns is None or chunk.path_in_schema in columns:
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(bytes(raw))


def day(number: int, *, key: int | str = 1) -> pl.DataFrame:
    """Rows of one key and instant, in a file's or row group's worth."""
    return pl.DataFrame(
        {"id": [key] * ROWS, "event": [at(24 * number)] * ROWS, "x": range(ROWS), "y": range(ROWS), "z": range(ROWS)}
    )


def asked(hours: float, key: int | str = 1) -> pl.DataFrame:
    return pl.DataFrame({"id": [key], "event_timestamp": [at(hours)]})


@pytest.fixture(params=["files", "row groups"])
def three_days(request: pytest.FixtureRequest, workshop: Workshop) -> Workshop:
    """Three days of which the first and the last are damaged, as files of one source or row groups of one file."""
    days = [day(number) for number in range(3)]
    folder = workshop.root / "s"
    folder.mkdir()
    if request.param == "files":
        for number, rows in enumerate(days):
            rows.write_parquet(folder / f"{number}.parquet")
        damage(folder / "0.parquet")
        damage(folder / "2.parquet")
    else:
        pl.concat(days).write_parquet(folder / "all.parquet", row_group_size=ROWS)
        damage(folder / "all.parquet", groups=[0, 2])
    workshop.source("s", path="s")
    return workshop


def test_times_nobody_can_see_are_not_read(three_days: Workshop):
    three_days.view("v", "s", {"x": ValueType.INT64}, ttl=timedelta(hours=5))
    assert three_days.collect("v:x", asked(25))["x"].to_list() == [ROWS - 1]
    with pytest.raises(SourceError, match="cannot be read"):
        three_days.collect("v:x", asked(48))
    with pytest.raises(SourceError, match="cannot be read"):
        three_days.collect("v:x", asked(5))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_events_outside_of_every_window_are_not_read(three_days: Workshop, unit: str):
    day_of_events = Aggregation(
        name="x_sum", function=AggregationFunction.SUM, column="x", window=timedelta(hours=6), hop=timedelta(hours=1)
    )
    three_days.view("v", "s", {"x_sum": ValueType.INT64}, aggregations=(day_of_events,))
    spine = asked(25).with_columns(pl.col("event_timestamp").dt.cast_time_unit(unit))  # type: ignore[arg-type]
    assert three_days.collect("v:x_sum", spine)["x_sum"].to_list() == [ROWS * (ROWS - 1) // 2]
    with pytest.raises(SourceError, match="cannot be read"):
        three_days.collect("v:x_sum", asked(49))


def test_a_run_reads_its_interval_only(three_days: Workshop):
    three_days.view("v", "s", {"x": ValueType.INT64})
    assert three_days.store.latest("v", start=at(12), end=at(36))["x"].to_list() == [ROWS - 1]
    with pytest.raises(SourceError, match="cannot be read"):
        three_days.store.latest("v", start=at(12), end=at(60))


def test_columns_nobody_asks_for_are_not_read(workshop: Workshop):
    day(0).write_parquet(workshop.root / "s.parquet")
    damage(workshop.root / "s.parquet", columns=["y", "z"])
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64, "y": ValueType.INT64})
    last = Aggregation(
        name="x_last", function=AggregationFunction.LAST, column="x", window=timedelta(hours=6), hop=timedelta(hours=1)
    )
    workshop.view("w", "s", {"x_last": ValueType.INT64}, aggregations=(last,))
    assert workshop.collect(["v:x", "w:x_last"], asked(1)).select("x", "x_last").rows() == [(ROWS - 1, ROWS - 1)]
    with pytest.raises(SourceError, match="cannot be read"):
        workshop.collect("v:y", asked(1))


@pytest.mark.parametrize(("keys", "dtype"), [((1, 5, 9), ValueType.INT64), (("a", "m", "z"), ValueType.STRING)])
def test_keys_nobody_asks_about_are_not_read(workshop: Workshop, keys: tuple, dtype: ValueType):
    """A file clustered by key, as Tidemill writes its own: statistics say which keys a row group holds."""
    rows = pl.concat([day(0, key=key) for key in keys])
    rows.write_parquet(workshop.root / "s.parquet", row_group_size=ROWS)
    damage(workshop.root / "s.parquet", groups=[0, 2])
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64}, keys={"id": dtype})
    assert workshop.collect("v:x", asked(1, keys[1]))["x"].to_list() == [ROWS - 1]
    with pytest.raises(SourceError, match="cannot be read"):
        workshop.collect("v:x", asked(1, keys[0]))


def test_features_of_rows_that_did_not_win_are_not_read(workshop: Workshop):
    pl.concat([day(0, key=1), day(0, key=2)]).write_parquet(workshop.root / "s.parquet", row_group_size=ROWS)
    damage(workshop.root / "s.parquet", groups=[1], columns=["x"])
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64})
    spine = pl.DataFrame({"id": [1, 2], "event_timestamp": [at(1), at(-1)]})
    assert workshop.collect("v:x", spine)["x"].to_list() == [ROWS - 1, None]
    with pytest.raises(SourceError, match="cannot be read"):
        workshop.collect("v:x", asked(1, 2))
