"""The windows that serving reads are the windows that training reads, at every instant and however events arrive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from online_stores import open_store
from own_redis import redis_in

from tidemill.definitions.catalog import (
    Aggregation,
    AggregationFunction,
    Catalog,
    Entity,
    Field,
    Projection,
    Service,
    Source,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import hop_for
from tidemill.offline.windows import window_values
from tidemill.online.keys import key_layout
from tidemill.online.push import write_events
from tidemill.online.store import OnlineStore
from tidemill.online.tile_rebuild import rebuild_tiles
from tidemill.online.tiles import TilePlan

F = AggregationFunction
MINUTE = 60_000_000
START = datetime(2013, 10, 1, 6, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
WHOLE = {F.COUNT: ValueType.INT64, F.COUNT_DISTINCT: ValueType.INT64}
COLUMNS = {
    "delay": ValueType.INT64, "distance": ValueType.DOUBLE, "late": ValueType.BOOL, "ticks": ValueType.INT64,
}  # fmt: skip
# A boolean has no sum; the spread of numbers near 2**55 is lost in a float's 53 bits on either side.
LEFT_OUT = {"late": {F.SUM, F.VAR}, "ticks": {F.MEAN, F.VAR, F.STD}}
SCHEMA = {
    "origin": pl.String, "flight": pl.Int64, "event": pl.Datetime("us", "UTC"), "known": pl.Datetime("us", "UTC"),
    "delay": pl.Int64, "distance": pl.Float64, "late": pl.Boolean, "ticks": pl.Int64, "id": pl.String,
}  # fmt: skip


def windowed(name: str, keys: tuple[str, ...], windows: tuple[str, ...], *, event_id: str | None = "id") -> View:
    lengths = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "13h": timedelta(hours=13)}
    features, aggregations = [Field(name="rows_1h", dtype=ValueType.INT64)], []
    aggregations.append(_aggregation("rows_1h", F.COUNT, "", lengths["1h"]))
    for text in windows:
        for column, dtype in COLUMNS.items():
            for function in F:
                if function in LEFT_OUT.get(column, ()):
                    continue
                feature = f"{column}_{function}_{text}"
                kept = dtype if function in {F.SUM, F.MIN, F.MAX, F.FIRST, F.LAST} else ValueType.DOUBLE
                features.append(Field(name=feature, dtype=WHOLE.get(function, kept)))
                aggregations.append(_aggregation(feature, function, column, lengths[text]))
    return View(
        name=name, entities=keys, join_keys=keys, features=tuple(features), source="departures", stream="departed",
        aggregations=tuple(aggregations), event_id=event_id,
    )  # fmt: skip


def _aggregation(name: str, function: F, column: str, window: timedelta) -> Aggregation:
    return Aggregation(name=name, function=function, column=column, window=window, hop=hop_for(window))


ORIGIN = windowed("origin_delays", ("origin",), ("15m", "13h"))
ROUTE = windowed("route_delays", ("origin", "flight"), ("1h",))
CATALOG = Catalog(
    project="flights",
    entities=(
        Entity(name="origin", join_key="origin", dtype=ValueType.STRING),
        Entity(name="flight", join_key="flight", dtype=ValueType.INT64),
    ),
    sources=(Source(name="departures", path="departures", timestamp_field="event", known_field="known"),),
    streams=(Stream(name="departed", kind="push", source="departures"),),
    views=(ORIGIN, ROUTE),
    services=(Service(name="all", projections=(Projection(view="origin_delays", features=()),)),),
)


class World:
    """An online store and a history that were told the same events."""

    def __init__(self, store: OnlineStore) -> None:
        self.store = store
        self.history: list[dict] = []

    def push(self, events: list[dict], at: int) -> Any:
        return write_events(self.store, "departed", pl.DataFrame(events, schema=SCHEMA), instant(at))

    def scan(self, _source: str = "") -> pl.LazyFrame:
        return pl.LazyFrame(self.history, schema=SCHEMA)

    def online(self, at: int, asked: list[tuple[View, tuple]]) -> list[dict[str, Any]]:
        plan = TilePlan("flights", [(view, [f.name for f in view.features]) for view, _ in asked])
        blobs = []
        for number, (view, key) in enumerate(asked):
            name = plan.key(number, key_layout(CATALOG, view).encode(key))
            blobs.append(self.store.resp.pipeline([("GET", name)]))
        found = []
        for columns in plan.decode(blobs, at):
            values = {name: column[0] for name, column in columns.values.items()}
            found.append(values | {"__event_time": columns.event_times[0]})
        return found

    def offline(self, at: int, asked: list[tuple[View, tuple]]) -> list[dict[str, Any]]:
        found = []
        for view, key in asked:
            keys = pl.DataFrame(
                [dict(zip(view.join_keys, key, strict=True))], schema={n: SCHEMA[n] for n in view.join_keys}
            )
            when = np.array([at])
            frame = window_values(
                view, self.scan(), keys, when, when,
                timestamp_field="event", known_field="known", with_event_time=True,
            ).with_columns(pl.col("__event_time").dt.epoch("us"))  # fmt: skip
            found.append(frame.row(0, named=True))
        return found

    def assert_agree(self, at: int) -> None:
        asked = [(ORIGIN, ("JFK",)), (ORIGIN, ("LGA",)), (ROUTE, ("JFK", 1)), (ROUTE, ("LGA", 1)), (ROUTE, ("EWR", 9))]
        for question, here, there in zip(asked, self.online(at, asked), self.offline(at, asked), strict=True):
            assert here.keys() == there.keys()
            for name, value in there.items():
                same = here[name] == value and type(here[name]) is type(value)
                if isinstance(value, float) and isinstance(here[name], float):
                    same = math.isclose(here[name], value, rel_tol=1e-9, abs_tol=1e-9)
                assert same, (question[0].name, question[1], name, here[name], value)


def instant(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    with redis_in(tmp_path_factory.mktemp("windows") / "redis") as server:
        store = open_store(CATALOG, server.url, at=START)
        yield store
        store.close()


@pytest.fixture
def world(store: OnlineStore) -> World:
    return fresh_world(store)


def fresh_world(store: OnlineStore) -> World:
    world = World(store)
    store.resp.call("FLUSHALL")
    return world


def an_event(number: int, minute: int, lateness: int, **values: Any) -> dict:
    event = START_US + minute * MINUTE
    return {
        "origin": "JFK", "flight": 1, "event": event, "known": event + lateness * MINUTE, "delay": number,
        "distance": 1.5, "late": number % 2 == 0, "ticks": 2**55 + number, "id": str(number),
    } | values  # fmt: skip


# Minutes are multiples of the hop or of half of it, so that windows' edges are hit exactly.
@st.composite
def lives(draw: st.DrawFn) -> list[tuple[int, list[dict]]]:
    """Pushes in order of time: (instant, events). Some come late, some ahead of the clock, some twice."""
    pushes, minute, sent, number = [], 0, [], 0
    for _ in range(draw(st.integers(1, 8))):
        minute += draw(st.sampled_from([0, 1, 5, 10, 60, 15, 300]))
        batch = []
        for _ in range(draw(st.integers(1, 8))):
            number += 1
            lateness = draw(st.sampled_from([0, 0, 0, 0, 1, 5, 30, 120, 600]))
            event = an_event(
                number, minute - lateness, lateness,
                origin=draw(st.sampled_from(["JFK", "JFK", "LGA", None])),
                flight=draw(st.sampled_from([1, 1, 2, None])),
                delay=draw(st.one_of(st.none(), st.integers(-30, 300))),
                distance=draw(st.one_of(st.none(), st.floats(-1e4, 1e4))),
                late=draw(st.sampled_from([None, True, False])),
                ticks=draw(st.one_of(st.none(), st.sampled_from([2**55 + 1, -(2**55) - 3, 2**53 + 1, 7]))),
            )  # fmt: skip
            if draw(st.booleans()) and lateness == 0:
                ahead = draw(st.sampled_from([0, 1_000_000, 5_000_000]))
                event |= {"event": event["event"] + ahead, "known": event["event"] + ahead}
            batch.append(event)
        if sent and draw(st.booleans()):
            batch.append(draw(st.sampled_from(sent)))
        sent += batch
        pushes.append((START_US + minute * MINUTE, draw(st.permutations(batch))))
    return pushes


@settings(max_examples=40)
@given(life=lives(), later=st.sampled_from([0, 1, 3, 5_000_000, 5 * MINUTE, 15 * MINUTE, 13 * 60 * MINUTE, 2**40]))
def test_windows_agree_after_every_push_and_slide_on_without_events(
    store: OnlineStore, life: list[tuple[int, list[dict]]], later: int
) -> None:
    world = fresh_world(store)
    for at, events in life:
        world.history += events
        world.push(events, at)
        world.assert_agree(at)
    world.assert_agree(life[-1][0] + 2_000_000)
    world.assert_agree(life[-1][0] + later)


@settings(max_examples=20)
@given(life=lives())
def test_rebuilding_gives_the_same_windows_as_having_streamed(
    store: OnlineStore, life: list[tuple[int, list[dict]]]
) -> None:
    world = fresh_world(store)
    for _, events in life:
        world.history += events
    at = life[-1][0] + 5_000_000
    world.store.resp.call("SET", "tm:{flights}:w:origin_delays:stale:key", "old")
    rebuild_tiles(world.store, "origin_delays", offline=world, at=instant(at))  # type: ignore[arg-type]
    world.assert_agree(at)
    assert world.store.resp.call("EXISTS", "tm:{flights}:w:origin_delays:stale:key") == 0
    again = world.push([event for _, events in life for event in events], at)
    assert again.accepted <= len(too_old(life, at))
    world.assert_agree(at)


def too_old(life: list[tuple[int, list[dict]]], at: int) -> set[str]:
    """Events that no window holds any more; whether they repeat is of no consequence."""
    oldest = at - 14 * 60 * MINUTE
    return {event["id"] for _, events in life for event in events if event["event"] < oldest}


def test_estimates_of_distinct_values_are_equal_also_where_they_are_not_exact(world: World) -> None:
    values = np.random.default_rng(3).integers(0, 10**9, 400).tolist()
    for start in range(0, len(values), 40):  # over several tiles, in several pushes
        minute = start // 40
        events = [
            an_event(start + place, minute, 0, delay=value, distance=value / 2, ticks=1)
            for place, value in enumerate(values[start : start + 40])
        ]
        world.history += events
        world.push(events, START_US + minute * MINUTE)
        world.assert_agree(START_US + minute * MINUTE)
    (found,) = world.online(START_US + 9 * MINUTE, [(ROUTE, ("JFK", 1))])
    assert found["delay_count_1h"] == 400
    assert found["delay_count_distinct_1h"] not in (None, len(set(values)))
    assert found["delay_count_distinct_1h"] == pytest.approx(len(set(values)), rel=4 * 0.065)
