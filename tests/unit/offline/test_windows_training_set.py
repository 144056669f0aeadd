"""Windowed views through a training set: keys, times and files of every kind mean what they mean for a plain view."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windowed_views import F, asked, windowed
from workshop import EPOCH, Workshop, at

from tidemill.definitions.catalog import Schedule
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError, SpineError
from tidemill.testing.window_oracle import window_oracle

START = int(EPOCH.timestamp()) * 10**9
HOUR = 3_600 * 10**9
STEP = {"ms": 10**6, "us": 10**3, "ns": 1}


# Keys


def test_a_view_without_entities_sums_everything(workshop: Workshop):
    source = workshop.source("s", {"event": [at(0), at(1)], "x": [1.0, 2.0]})
    windowed(workshop, source, F.SUM, F.COUNT, keys={})
    spine = pl.DataFrame({"event_timestamp": [at(0.5), at(2), at(-1)]})
    found = workshop.collect(["v:sum", "v:count"], spine)
    assert found.select("sum", "count").rows() == [(1.0, 1), (3.0, 2), (None, 0)]
    assert workshop.store.latest("v", end=at(2)).rows() == [(3.0, 2, at(2), at(2))]
    assert workshop.store.latest("v", end=at(-1)).height == 0


def test_neither_null_nor_nan_is_a_key(workshop: Workshop):
    source = workshop.source("s", {"id": [1.0, float("nan"), None], "event": [at(0)] * 3, "x": [1.0, 2.0, 4.0]})
    windowed(workshop, source, F.SUM)
    spine = asked((1.0, 1), (float("nan"), 1), (None, 1))
    assert workshop.collect("v:sum", spine)["sum"].to_list() == [1.0, None, None]


def test_whole_numbers_beyond_a_floats_reach_stay_apart(workshop: Workshop):
    source = workshop.source("s", {"id": [float(2**53)], "event": [at(0)], "x": [1.0]})
    windowed(workshop, source, F.SUM)
    assert workshop.collect("v:sum", asked((2**53, 1), (2**53 + 1, 1)))["sum"].to_list() == [1.0, None]


def test_keys_of_another_kind_are_refused_on_either_side(workshop: Workshop):
    windowed(workshop, workshop.source("s", {"id": ["1"], "event": [at(0)], "x": [1.0]}), F.SUM)
    with pytest.raises(SourceError, match="keys are whole numbers"):
        workshop.collect("v:sum", asked((1, 1)))
    with pytest.raises(SpineError, match="holds fractions"):
        workshop.store.training_set("v:sum", asked((1.5, 1)))


def test_composite_keys_of_text_and_folders_match_as_a_whole(workshop: Workshop):
    for country, rows in (("de", [1, 2]), ("us", [3])):
        folder = workshop.root / "s" / f"country={country}"
        folder.mkdir(parents=True)
        pl.DataFrame({"event": [at(0)] * len(rows), "kind": ["a"] * len(rows), "x": rows}).write_parquet(
            folder / "a.parquet"
        )
    windowed(
        workshop,
        workshop.source("s", path="s"),
        F.SUM,
        F.COUNT_DISTINCT,
        keys={"country": ValueType.STRING, "kind": ValueType.STRING},
    )
    spine = pl.DataFrame({"country": ["us", "de", "fr"], "kind": ["a"] * 3, "event_timestamp": [at(1)] * 3})
    spine = spine.with_columns(pl.col("kind").cast(pl.Categorical))
    found = workshop.collect(["v:sum", "v:count_distinct"], spine)
    assert found.select("sum", "count_distinct").rows() == [(3.0, 1), (3.0, 2), (None, None)]


# Times


UNITS = st.sampled_from(list(STEP))
ZONES = st.sampled_from([None, "UTC", "America/New_York"])
instants = st.tuples(st.integers(-1, 5), st.integers(-2, 2))


def column(values: list[tuple[int, int] | None], unit: str, zone: str | None) -> tuple[pl.Series, list[int | None]]:
    """Hours and ticks of a unit as a column; and as nanoseconds."""
    step = STEP[unit]
    nanos = [None if value is None else START + value[0] * HOUR + value[1] * step for value in values]
    ticks = pl.Series([None if value is None else value // step for value in nanos], dtype=pl.Int64)
    naive = ticks.cast(pl.Datetime(unit))  # type: ignore[arg-type]
    return naive if zone is None else naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone), nanos


@settings(max_examples=150)
@given(
    events=st.lists(
        st.tuples(st.sampled_from([1, 2]), instants, st.one_of(st.none(), instants), st.integers(-5, 5)), max_size=15
    ),
    labels=st.lists(st.tuples(st.sampled_from([1, 2, None]), instants), max_size=8),
    units=st.tuples(UNITS, UNITS, UNITS),
    zones=st.tuples(ZONES, ZONES, ZONES),
    has_known=st.booleans(),
    filter_known=st.booleans(),
)
def test_windows_compare_every_unit_and_zone_exactly(
    make_workshop: Callable[[], Workshop],
    events: list[tuple],
    labels: list[tuple],
    units: tuple[str, str, str],
    zones: tuple[str | None, str | None, str | None],
    has_known: bool,
    filter_known: bool,
):
    workshop = make_workshop()
    happened, event = column([row[1] for row in events], units[0], zones[0])
    learned, known = column([row[2] for row in events], units[1], zones[1])
    request, when = column([row[1] for row in labels], units[2], zones[2])
    keys = pl.Series([row[0] for row in events], dtype=pl.Int64)
    values = pl.Series([row[3] for row in events], dtype=pl.Int64)
    rows = pl.DataFrame({"id": keys, "event": happened, "x": values})
    source = workshop.source("s", rows.with_columns(known=learned) if has_known else rows)
    view = windowed(workshop, source, F.SUM, F.COUNT, F.LAST)
    ids = [row[0] for row in labels]
    spine = pl.DataFrame({"id": pl.Series(ids, dtype=pl.Int64), "event_timestamp": request})
    found = workshop.collect(["v:sum", "v:count", "v:last"], spine, filter_known=filter_known)
    history = [
        {"id": row[0], "event": event[place], "known": known[place] if has_known else None, "x": row[3]}
        for place, row in enumerate(events)
    ]
    upto = [instant for instant in when if instant is not None]
    seen = upto if filter_known else [2**62] * len(upto)
    expected = window_oracle(view, history, [{"id": key} for key in ids], upto, seen, per_microsecond=1_000)
    assert found.select("sum", "count", "last").to_dicts() == expected


def test_an_event_a_nanosecond_after_the_request_does_not_count_and_one_before_does(workshop: Workshop):
    times = pa.array([START + 100, START + 900], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"id": [1, 1], "event": times, "x": [1.0, 2.0]}), workshop.root / "s.parquet")
    windowed(workshop, workshop.source("s"), F.SUM)
    requests = pl.Series([START + 99, START + 100, START + 899, START + 900]).cast(pl.Datetime("ns", "UTC"))
    found = workshop.collect("v:sum", pl.DataFrame({"id": [1] * 4, "event_timestamp": requests}))
    assert found["sum"].to_list() == [None, 1.0, 1.0, 3.0]
    latest = workshop.store.latest("v", end=at(0) + timedelta(microseconds=1))
    assert latest["sum"].to_list() == [3.0]


def test_times_far_from_now_do_no_harm(workshop: Workshop):
    windowed(workshop, workshop.source("s", {"id": [1], "event": [at(0)], "x": [1.0]}), F.SUM)
    texts = ["0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "2024-01-01T01:00:00Z"]
    found = workshop.collect("v:sum", pl.DataFrame({"id": [1] * 3, "event_timestamp": texts}))
    assert found["sum"].to_list() == [None, None, 1.0]


def test_text_and_dates_may_say_when_events_happened(workshop: Workshop):
    rows = {"id": [1, 1], "event": ["2024-01-01T02:00:00+02:00", "2024-01-01T01:00:00Z"], "x": [1.0, 2.0]}
    windowed(workshop, workshop.source("s", rows), F.SUM)
    assert workshop.collect("v:sum", asked((1, 0.5), (1, 1)))["sum"].to_list() == [1.0, 3.0]


# Files


def test_files_may_differ_in_units_and_widths_and_follow_each_other(workshop: Workshop):
    folder = workshop.root / "s"
    folder.mkdir()
    for number, (unit, dtype) in enumerate([("ms", pl.Int8), ("us", pl.Int32), ("ns", pl.Int64)]):
        event = pl.Series([at(number)]).cast(pl.Datetime("us", "UTC")).dt.cast_time_unit(unit)  # type: ignore[arg-type]
        rows = {"id": pl.Series([1], dtype=dtype), "event": event, "x": [1.5]}
        pl.DataFrame(rows).write_parquet(folder / f"{number}.parquet")
    windowed(workshop, workshop.source("s", path="s"), F.SUM, F.COUNT)
    found = workshop.collect(["v:sum", "v:count"], asked((1, 0), (1, 1), (1, 2.5)))
    assert found.select("sum", "count").rows() == [(1.5, 1), (3.0, 2), (4.5, 3)]


def test_a_delta_table_holds_events_too(workshop: Workshop):
    from deltalake import write_deltalake

    rows = pl.DataFrame({"id": [1, 2], "event": [at(0)] * 2, "x": [10.0, 20.0], "part": ["a", "b"]})
    write_deltalake(str(workshop.root / "s"), rows.to_arrow(), partition_by=["part"])
    windowed(workshop, workshop.source("s", path="s", file_format="delta"), F.SUM)
    assert workshop.collect("v:sum", asked((1, 1), (2, 1)))["sum"].to_list() == [10.0, 20.0]


def test_names_in_the_file_are_mapped(workshop: Workshop):
    rows = {"k": [1, 1], "ts": [at(0), at(1)], "made": [at(0), at(5)], "value": [10.0, 20.0]}
    mapping = (("k", "id"), ("ts", "event"), ("made", "known"), ("value", "x"))
    source = workshop.source("s", rows, timestamp_field="ts", known_field="made", field_mapping=mapping)
    windowed(workshop, source, F.SUM)
    assert workshop.collect("v:sum", asked((1, 1)))["sum"].to_list() == [10.0]


def test_a_folder_without_a_file_yet_holds_no_events(workshop: Workshop):
    (workshop.root / "s").mkdir()
    windowed(workshop, workshop.source("s", path="s"), F.SUM, F.COUNT, F.COUNT_DISTINCT)
    found = workshop.collect(["v:sum", "v:count", "v:count_distinct"], asked((1, 1)))
    assert found.select("sum", "count", "count_distinct").rows() == [(None, 0, None)]
    assert workshop.store.latest("v", end=at(1)).height == 0


def test_an_empty_spine_answers_no_rows_of_the_declared_types(workshop: Workshop):
    windowed(workshop, workshop.source("s", {"id": [1], "event": [at(0)], "x": [1.0]}), F.SUM, F.COUNT)
    found = workshop.collect(["v:sum", "v:count"], asked((1, 1)).clear())
    assert found.height == 0
    assert (found.schema["sum"], found.schema["count"]) == (pl.Float64, pl.Int64)


# Served mode


def test_in_served_mode_a_scheduled_window_ends_at_its_cutoff_and_does_not_slide_on(workshop: Workshop):
    source = workshop.source("s", {"id": [1] * 4, "event": [at(0), at(1), at(2), at(3)], "x": [1.0, 2.0, 4.0, 8.0]})
    windowed(workshop, source, F.SUM, schedule=Schedule(cron="0 * * * *", lag=timedelta(minutes=5)))
    spine = asked((1, 3.05), (1, 3.5), (1, 6.5))
    assert workshop.collect("v:sum", spine, mode="served")["sum"].to_list() == [7.0, 15.0, 8.0]
    assert workshop.collect("v:sum", spine, mode="event")["sum"].to_list() == [15.0, 14.0, None]


# Little memory


@settings(max_examples=60)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", None]), instants, st.one_of(st.none(), instants), st.floats(-9, 9)),
        max_size=25,
    ),
    labels=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), instants), max_size=10),
    files=st.integers(1, 3),
    group=st.integers(1, 5),
    room=st.sampled_from([1, 600, 10**6]),
    rows=st.sampled_from([1, 4, 100]),
)
def test_shares_of_the_keys_answer_what_all_at_once_do(
    make_workshop: Callable[[], Workshop],
    events: list[tuple],
    labels: list[tuple],
    files: int,
    group: int,
    room: int,
    rows: int,
):
    from tidemill.offline import window_answers, window_events

    workshop = make_workshop()
    happened, _ = column([row[1] for row in events], "us", "UTC")
    learned, _ = column([row[2] for row in events], "us", "UTC")
    keys = pl.Series([row[0] for row in events], dtype=pl.String)
    values = pl.Series([row[3] for row in events], dtype=pl.Float64)
    frame = pl.DataFrame({"id": keys, "event": happened, "known": learned, "x": values})
    folder = workshop.root / "s"
    folder.mkdir()
    size = max(1, -(-frame.height // files))
    for part in range(files):
        frame.slice(part * size, size).write_parquet(folder / f"{part}.parquet", row_group_size=group)
    source = workshop.source("s", path="s", known_field="known")
    view = windowed(workshop, source, *F, keys={"id": ValueType.STRING})
    asking = pl.DataFrame({"id": pl.Series([row[0] for row in labels], dtype=pl.String)})
    _, when = column([row[1] for row in labels], "us", None)
    upto = np.array(when, np.int64) // 1_000
    names = [feature.name for feature in view.features]
    had, window_events.PIECE_ROWS = window_events.PIECE_ROWS, rows
    try:
        opened = workshop.store._events(view)
        by_share = window_answers.answer_windows(opened, asking, upto, "us", features=names, room=room)
    finally:
        window_events.PIECE_ROWS = had
    at_once = window_answers.answer_windows(opened, asking, upto, "us", features=names)
    assert by_share.equals(at_once)
