"""A tile plan reads many rows and views at once, and gives each its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from online_stores import open_store

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import hop_for
from tidemill.offline.windows import window_values
from tidemill.online.keys import key_layout
from tidemill.online.push import write_events
from tidemill.online.store import OnlineStore
from tidemill.online.tile_layout import layouts_of
from tidemill.online.tiles import TilePlan, WindowColumns

NOW = datetime(2013, 10, 8, tzinfo=UTC)
F = AggregationFunction
HOURS = {"1h": timedelta(hours=1), "3h": timedelta(hours=3), "24h": timedelta(hours=24)}
WANTED = {"mean": F.MEAN, "count": F.COUNT, "seen": F.LAST}


def windowed(name: str, keys: tuple[str, ...]) -> View:
    aggregations = tuple(
        Aggregation(
            name=f"{short}_{text}",
            function=function,
            column="seen_at" if short == "seen" else "delay",
            window=window,
            hop=hop_for(window),
        )
        for text, window in HOURS.items()
        for short, function in WANTED.items()
    )
    dtypes = {"mean": ValueType.DOUBLE, "count": ValueType.INT64, "seen": ValueType.UNIX_TIMESTAMP}
    features = tuple(Field(name=item.name, dtype=dtypes[item.name.split("_")[0]]) for item in aggregations)
    return View(
        name=name, entities=keys, join_keys=keys, features=features, source="departures", stream="departed",
        aggregations=aggregations, event_id="flight_id",
    )  # fmt: skip


VIEWS = (windowed("origins", ("origin",)), windowed("routes", ("origin", "dest")), windowed("everywhere", ()))
CATALOG = Catalog(
    project="flights",
    entities=tuple(Entity(name=name, join_key=name, dtype=ValueType.STRING) for name in ("origin", "dest")),
    sources=(Source(name="departures", path="departures", timestamp_field="event"),),
    streams=(Stream(name="departed", kind="push", source="departures"),),
    views=VIEWS,
)


def events() -> pl.DataFrame:
    random = np.random.default_rng(3)
    count = 2_000
    moment = to_micros(NOW) - np.sort(random.integers(0, 30 * 3_600_000_000, count))[::-1]
    instant = pl.Series(moment).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "origin": random.choice(["JFK", "LGA", "EWR"], count),
            "dest": random.choice([f"D{number}" for number in range(60)], count),
            "event": instant,
            "seen_at": instant,
            "delay": pl.Series(random.normal(0, 30, count)).scatter(range(0, count, 9), None),
            "flight_id": [str(number) for number in range(count)],
        }
    )


@pytest.fixture
def store(address: str) -> Iterator[OnlineStore]:
    store = open_store(CATALOG, address, at=NOW)
    write_events(store, "departed", events(), NOW)
    yield store
    store.close()


def entity_key(view: View, row: tuple) -> bytes:
    layout = key_layout(CATALOG, view)
    return layout.encode(row) if view.join_keys else layout.encode_rows(1)[0]


def read(
    store: OnlineStore, plan: TilePlan, asked: list[tuple[View, list[tuple]]], at: datetime
) -> list[WindowColumns]:
    blobs = []
    for number, (view, rows) in enumerate(asked):
        keys = [plan.key(number, entity_key(view, row)) for row in rows]
        blobs.append(store.resp.pipeline([("GET", key) for key in keys]) if keys else [])
    return plan.decode(blobs, to_micros(at))


@pytest.mark.parametrize("later", [timedelta(0), timedelta(minutes=50), timedelta(hours=20), timedelta(days=3)])
def test_many_rows_of_many_views_equal_the_offline_windows(store: OnlineStore, later: timedelta) -> None:
    history, at = events(), NOW + later
    asked = []
    for view in VIEWS:
        rows = history.select(view.join_keys).unique().rows() if view.join_keys else [()]
        asked.append((view, [*rows, tuple("nowhere" for _ in view.join_keys), *rows[:2]]))
    plan = TilePlan("flights", [(view, [feature.name for feature in view.features]) for view in VIEWS])
    for (view, rows), found in zip(asked, read(store, plan, asked, at), strict=True):
        keys = pl.DataFrame(rows, schema=dict.fromkeys(view.join_keys, pl.String), orient="row")
        until = np.full(len(rows), to_micros(at))
        if not view.join_keys:
            keys = pl.DataFrame({"any": range(len(rows))})
        there = window_values(view, history.lazy(), keys, until, until, timestamp_field="event", with_event_time=True)
        for feature in view.features:
            mine, theirs = found.values[feature.name], there[feature.name].to_list()
            assert [value is None for value in mine] == [value is None for value in theirs]
            if feature.dtype is ValueType.DOUBLE:
                mine, theirs = ([value or 0.0 for value in one] for one in (mine, theirs))
                theirs = pytest.approx(theirs, rel=1e-9)
            assert mine == theirs
        assert found.event_times == there["__event_time"].dt.epoch("us").to_list()
        assert found.found == [row != ("nowhere",) * len(row) or not row for row in rows]
        assert found.as_of == [to_micros(at)] * len(rows)


def test_some_features_come_in_the_order_asked(store: OnlineStore) -> None:
    view = VIEWS[0]
    everything = TilePlan("flights", [(view, [feature.name for feature in view.features])])
    some = TilePlan("flights", [(view, ["mean_3h", "count_1h"])])
    whole = read(store, everything, [(view, [("JFK",)])], NOW)[0]
    part = read(store, some, [(view, [("JFK",)])], NOW)[0]
    assert list(part.values) == ["mean_3h", "count_1h"]
    assert part.values == {name: whole.values[name] for name in part.values}
    assert part.event_times == whole.event_times


def test_no_rows_are_no_answers(store: OnlineStore) -> None:
    plan = TilePlan("flights", [(VIEWS[0], ["mean_1h"]), (VIEWS[1], ["count_24h"])])
    found = read(store, plan, [(VIEWS[0], []), (VIEWS[1], [("JFK", "D1")])], NOW)
    assert found[0].values == {"mean_1h": []}
    assert len(found[1].values["count_24h"]) == 1


def test_a_reader_whose_clock_is_behind_is_told_for_which_instant_its_answer_holds(store: OnlineStore) -> None:
    newest = to_micros(events()["event"].max())  # type: ignore[arg-type]
    plan = TilePlan("flights", [(VIEWS[2], ["count_1h"])])
    key = key_layout(CATALOG, VIEWS[2]).encode_rows(1)[0]
    blobs = store.resp.pipeline([("GET", plan.key(0, key))])
    assert plan.decode([blobs], newest - 10)[0].as_of == [newest]


def test_tiles_of_a_changed_definition_are_never_misread() -> None:
    view = VIEWS[0]
    digests = {layout.digest for layout in layouts_of(view)}
    longer = replace(
        view, aggregations=(*view.aggregations[:-1], replace(view.aggregations[-1], window=timedelta(hours=30)))
    )
    other = replace(view, aggregations=view.aggregations[:-1])
    for changed in (longer, other):
        assert {layout.digest for layout in layouts_of(changed)} != digests


def test_a_command_is_the_key_as_redis_takes_it() -> None:
    plan = TilePlan("flights", [(VIEWS[0], ["mean_1h"])])
    key = key_layout(CATALOG, VIEWS[0]).encode(("JFK",))
    name = plan.key(0, key)
    assert plan.commands(0, key) == b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)
