"""Whole training sets against the oracle: random sources, spines, units, zones, orders, files and views."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Row, winner
from workshop import EPOCH, Workshop

from tidemill.definitions.types import ValueType
from tidemill.offline import blocks, guessing, history, layout, side_by_side, walk_back

START = int(EPOCH.timestamp()) * 10**9
STEP = {"ms": 10**6, "us": 10**3, "ns": 1}
KEYS = {
    ValueType.INT64: st.sampled_from([0, 1, -(2**63), 2**63 - 1, 10**12]),
    ValueType.INT32: st.integers(0, 3),
    ValueType.STRING: st.sampled_from(["", "a", "A", "aé", "a\x00"]),
    ValueType.BYTES: st.sampled_from([b"", b"\x00", b"\xff"]),
    ValueType.BOOL: st.booleans(),
}
VALUES = {
    ValueType.INT64: st.sampled_from([0, -1, 2**53 + 1, 2**62 + 1]),
    ValueType.DOUBLE: st.sampled_from([0.0, float("nan"), float("inf"), 1e-300]),
    ValueType.STRING: st.sampled_from(["", "x", "long text that does not fit into a view"]),
    ValueType.INT64_LIST: st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=2),
    ValueType.BYTES: st.binary(max_size=3),
    ValueType.BOOL: st.booleans(),
}


@st.composite
def sources(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(list(KEYS)), max_size=2))
    feature = draw(st.sampled_from(list(VALUES)))
    unit = draw(st.sampled_from(list(STEP)))
    row = st.tuples(
        st.tuples(*(st.one_of(st.none(), KEYS[dtype]) if draw(st.booleans()) else KEYS[dtype] for dtype in keys)),
        st.one_of(st.none(), st.integers(0, 6)) if draw(st.booleans()) else st.integers(0, 6),
        st.one_of(st.none(), st.integers(0, 9)),
        st.one_of(st.none(), VALUES[feature]),
    )
    rows = draw(st.lists(row, max_size=25))
    order = draw(st.sampled_from(["given", "time", "clustered"]))
    if order == "time":
        rows.sort(key=lambda item: (item[1] is None, item[1] or 0))
    if order == "clustered":
        rows.sort(key=lambda item: (repr(item[0]), item[1] is None, item[1] or 0))
    return {
        "keys": keys,
        "feature": feature,
        "unit": unit,
        "zone": draw(st.sampled_from([None, "UTC", "America/New_York"])),
        "rows": rows,
        "has_known": draw(st.booleans()),
        "ttl": draw(st.sampled_from([0, 1, 2, 5])),
        "group": draw(st.sampled_from([1, 3, 100])),
        "files": draw(st.sampled_from([1, 2])),
        "written": draw(st.sampled_from(["by polars", "by tidemill", "plain", "plain, second version"])),
    }


def times(values: list[int | None], unit: str, zone: str | None) -> pl.Series:
    """Ticks of a unit after the tests' first instant."""
    base = START // STEP[unit]
    found = pl.Series([None if value is None else base + value for value in values], dtype=pl.Int64)
    naive = found.cast(pl.Datetime(unit))  # type: ignore[arg-type]
    return naive if zone is None else naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)


def write_part(frame: pl.DataFrame, file: Path, made: dict[str, Any]) -> None:
    """Compressed, as Tidemill lays out a large batch, or with pages of a row or two that hold nothing but values."""
    if made["written"] == "by polars":
        frame.write_parquet(file, row_group_size=made["group"])
        return
    if made["written"] == "by tidemill":
        keys = [name for name in frame.columns if name not in {"event", "known", "value"}]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "ROW_GROUP_ROWS", made["group"])
            layout.write_rows(frame, file, keys=keys, time="event")
        return
    pq.write_table(
        frame.to_arrow(compat_level=pl.CompatLevel.oldest()),
        file,
        compression="none",
        use_dictionary=False,
        row_group_size=made["group"],
        max_rows_per_page=2,
        data_page_version="2.0" if "second" in made["written"] else "1.0",
    )


def write(workshop: Workshop, number: int, made: dict[str, Any]) -> None:
    columns = {
        f"k{number}{place}": pl.Series([row[0][place] for row in made["rows"]], dtype=dtype.polars())
        for place, dtype in enumerate(made["keys"])
    }
    columns["event"] = times([row[1] for row in made["rows"]], made["unit"], made["zone"])
    if made["has_known"]:
        columns["known"] = times([row[2] for row in made["rows"]], made["unit"], made["zone"])
    columns["value"] = pl.Series([row[3] for row in made["rows"]], dtype=made["feature"].polars())
    frame = pl.DataFrame(columns)
    folder = workshop.root / f"s{number}"
    folder.mkdir()
    size = max(1, -(-frame.height // made["files"]))
    for part in range(made["files"]):
        write_part(frame.slice(part * size, size), folder / f"{part}.parquet", made)
    source = workshop.source(f"s{number}", path=f"s{number}", known_field="known" if made["has_known"] else None)
    workshop.view(
        f"v{number}",
        source,
        {"value": made["feature"]},
        keys={f"k{number}{place}": dtype for place, dtype in enumerate(made["keys"])},
        ttl=timedelta(microseconds=made["ttl"]),
    )


@pytest.mark.parametrize("steps", [1, 12])
@settings(max_examples=120)
@given(data=st.data())
def test_a_training_set_is_what_the_oracle_says(make_workshop: Callable[[], Workshop], steps: int, data: st.DataObject):
    workshop = make_workshop()
    made = data.draw(st.lists(sources(), min_size=1, max_size=3))
    for number, source in enumerate(made):
        write(workshop, number, source)
    unit = data.draw(st.sampled_from(list(STEP)))
    key_values = st.tuples(
        *(st.one_of(st.none(), KEYS[dtype]) for source in made for dtype in source["keys"]), st.integers(-1, 9)
    )
    labels = data.draw(st.lists(key_values, max_size=8))
    names = [f"k{number}{place}" for number, source in enumerate(made) for place in range(len(source["keys"]))]
    dtypes = [dtype for source in made for dtype in source["keys"]]
    spine = pl.DataFrame(
        {
            **{
                name: pl.Series([row[place] for row in labels], dtype=dtypes[place].polars())
                for place, name in enumerate(names)
            },
            "event": times([row[-1] for row in labels], unit, data.draw(st.sampled_from([None, "UTC", "Asia/Tokyo"]))),
        }
    )
    filter_known = data.draw(st.booleans())
    refs = [f"v{number}:value" for number in range(len(made))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk_back, "_STEPS", steps)
        patch.setattr(guessing, "_STEPS", steps)
        patch.setattr(blocks, "_ROWS", data.draw(st.sampled_from([2, 1 << 16])))
        patch.setattr(history, "CHUNK_ROWS", data.draw(st.sampled_from([2, 1 << 20])))
        patch.setattr(side_by_side, "_MANY", data.draw(st.sampled_from([1, 50_000])))
        patch.setattr(side_by_side, "_FEW", data.draw(st.sampled_from([3, 15_000])))
        training_set = workshop.store.training_set(
            refs, spine, mode="event", time_column="event", full_feature_names=True, filter_known=filter_known
        )
        found = training_set.collect()
    assert found.select(spine.columns).equals(spine, null_equal=True)
    for number, source in enumerate(made):
        column = found[f"v{number}__value"]
        assert column.dtype == source["feature"].polars()
        assert list(map(repr, column.to_list())) == list(
            map(repr, expected(source, names, number, labels, unit, filter_known))
        )


def expected(
    source: dict[str, Any], names: list[str], number: int, labels: list[tuple], unit: str, filter_known: bool
) -> list[Any]:
    step = STEP[source["unit"]]
    rows = [
        Row(
            keys=row[0],
            event=None if row[1] is None else START + row[1] * step,
            known=None if row[2] is None else START + row[2] * step,
            values={"value": row[3]},
        )
        for row in source["rows"]
    ]
    mine = [place for place, name in enumerate(names) if name.startswith(f"k{number}")]
    answers = []
    for label in labels:
        when = START + label[-1] * STEP[unit]
        place = winner(
            rows,
            tuple(label[key] for key in mine),
            at=when,
            cutoff=when,
            ttl=source["ttl"] * 1_000,
            has_known=source["has_known"],
            filter_known=filter_known,
        )
        answers.append(None if place is None else rows[place].values["value"])
    return answers


@settings(max_examples=80)
@given(made=sources(), data=st.data())
def test_latest_is_the_newest_row_of_each_key_in_the_interval(
    make_workshop: Callable[[], Workshop], made: dict[str, Any], data: st.DataObject
):
    made = {**made, "unit": "us"}
    workshop = make_workshop()
    write(workshop, 0, made)
    start = data.draw(st.one_of(st.none(), st.integers(-1, 7)))
    end = data.draw(st.integers(-1, 9))
    known_after = data.draw(st.one_of(st.none(), st.integers(-1, 9)))
    at = lambda tick: None if tick is None else EPOCH + timedelta(microseconds=tick)  # noqa: E731
    found = workshop.store.latest_rows("v0", start=at(start), end=at(end), known_after=at(known_after))
    best: dict[tuple, tuple] = {}
    nulls = 0
    for position, (keys, event, known, value) in enumerate(made["rows"]):
        learned = known if made["has_known"] else event
        if event is None or event > end or (learned is not None and learned > end):
            continue
        late = known_after is not None and learned is not None and learned > known_after
        if not (start is None or event > start or late):
            continue
        if any(key is None for key in keys):
            nulls += 1
            continue
        order = (event, -1 if learned is None else learned, position)
        if keys not in best or order > best[keys][0]:
            best[keys] = (order, value)
    width = len(made["keys"])
    rows = {row[:width]: row for row in found.frame.rows()}
    assert found.null_keys == nulls
    assert len(rows) == found.frame.height
    assert {keys: repr(row[width]) for keys, row in rows.items()} == {key: repr(item[1]) for key, item in best.items()}
    assert {keys: row[width + 1] for keys, row in rows.items()} == {key: at(item[0][0]) for key, item in best.items()}


@settings(max_examples=80)
@given(
    made=sources(),
    asked=st.lists(st.tuples(st.integers(-1, 9), st.integers(-2, 9)), min_size=1, max_size=8),
    data=st.data(),
)
def test_values_at_a_cutoff_count_the_ttl_from_the_request(
    make_workshop: Callable[[], Workshop], made: dict[str, Any], asked: list[tuple[int, int]], data: st.DataObject
):
    """Served mode: the cut-off is what the online store had seen, the request is when it is read."""
    made = {**made, "unit": "us"}
    workshop = make_workshop()
    write(workshop, 0, made)
    keys = [data.draw(st.tuples(*(st.one_of(st.none(), KEYS[dtype]) for dtype in made["keys"]))) for _ in asked]
    frame = pl.DataFrame(
        [
            pl.Series(f"k0{place}", [key[place] for key in keys], dtype.polars())
            for place, dtype in enumerate(made["keys"])
        ]
    )
    base = START // 1_000
    at = np.array([base + item[0] for item in asked], np.int64)
    cutoff = np.array([base + item[1] for item in asked], np.int64)
    found = workshop.store.values_at("v0", frame, at, cutoff)["value"].to_list()
    rows = [Row(keys=row[0], event=row[1], known=row[2], values={"value": row[3]}) for row in made["rows"]]
    for place, (key, (when, seen)) in enumerate(zip(keys, asked, strict=True)):
        best = winner(rows, key, at=when, cutoff=seen, ttl=made["ttl"], has_known=made["has_known"])
        assert repr(found[place]) == repr(None if best is None else rows[best].values["value"])
