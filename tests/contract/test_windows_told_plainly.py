"""Lives of pushes, repeats, rebuilds and reads, against what section 4 of the semantics says in plain Python."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from online_stores import open_store
from own_redis import redis_in

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import hop_for
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.push import write_events
from tidemill.online.store import OnlineStore
from tidemill.online.tile_rebuild import rebuild_tiles

F = AggregationFunction
SECOND = 1_000_000
MINUTE = 60 * SECOND
START = int(datetime(2013, 10, 1, 6, tzinfo=UTC).timestamp()) * SECOND
INSTANT = pl.Datetime("us", "UTC")
SCHEMA = {
    "origin": pl.String, "event": INSTANT, "known": INSTANT, "whole": pl.Int64, "broken": pl.Float64,
    "id": pl.String,
}  # fmt: skip
WINDOWS = (3, 7, 60, 13 * 60, 3 * 1440, 20 * 1440)  # minutes
HOPS = (1, 2, 7, 50)
ORIGINS = ("JFK", "LGA", "ü}:{x")
Event = dict[str, Any]


def a_view(dice: random.Random, name: str) -> View:
    features, aggregations = [], []
    for number in range(dice.randint(1, 6)):
        function, column = (
            dice.choice([one for one in F if one is not F.COUNT_DISTINCT]),
            dice.choice(["whole", "broken"]),
        )
        column = dice.choice(["", column]) if function is F.COUNT else column
        window = timedelta(minutes=dice.choice(WINDOWS))
        hop = hop_for(window, timedelta(minutes=dice.choice(HOPS)) if dice.random() < 0.5 else None)
        whole = function is F.COUNT or (column == "whole" and function not in (F.MEAN, F.VAR, F.STD))
        features.append(Field(name=f"f{number}", dtype=ValueType.INT64 if whole else ValueType.DOUBLE))
        told = {"function": function, "column": column, "window": window, "hop": min(hop, window)}
        aggregations.append(Aggregation(name=f"f{number}", **told))
    return View(
        name=name, entities=("airport",), join_keys=("origin",), features=tuple(features), source="s", stream="st",
        aggregations=tuple(aggregations), event_id="id",
    )  # fmt: skip


def a_catalog(dice: random.Random) -> Catalog:
    return Catalog(
        project="p",
        entities=(Entity(name="airport", join_key="origin", dtype=ValueType.STRING),),
        sources=(Source(name="s", path="s", timestamp_field="event", known_field="known"),),
        streams=(Stream(name="st", kind="push", source="s"),),
        views=tuple(a_view(dice, f"v{number}") for number in range(dice.randint(1, 2))),
    )


def some_events(dice: random.Random, now: int, sent: Sequence[Event]) -> list[Event]:
    """New ones, on time, late or a little ahead of the clock, and repeats, of which some were learned later."""
    found: list[Event] = []
    for _ in range(dice.choice([1, 1, 3, 30])):
        late = dice.choice(
            [0, 0, 1, MINUTE, 5 * MINUTE, dice.randint(0, 900 * SECOND), 900 * MINUTE, 4 * 1440 * MINUTE]
        )
        event = dice.choice([now - late, now - late, (now - late) // (5 * MINUTE) * 5 * MINUTE])
        known = max(event, now - dice.choice([0, 0, SECOND, MINUTE]))
        if dice.random() < 0.1:
            event = known = now + dice.randint(0, 5 * SECOND)
        found.append(
            {
                "origin": dice.choice([*ORIGINS, None]), "event": event, "known": known,
                "whole": dice.choice([None, 0, -5, dice.randint(-(10**6), 10**6)]),
                "broken": dice.choice([None, 0.5, dice.uniform(-1e4, 1e4)]),
                "id": f"{len(sent) + len(found)}" * dice.choice([1, 1, 20]),
            }
        )  # fmt: skip
    again = dice.sample(list(sent), min(len(sent), dice.choice([0, 1, 5])))
    found += [one | ({"known": max(one["known"], now)} if dice.random() < 0.3 else {}) for one in again]
    dice.shuffle(found)
    return found


def expected(aggregation: Aggregation, events: Sequence[Event], origin: str, at: int) -> set[Any]:
    """What the value may be: where the first or the last event is not the only one of its instant, any of them."""
    first: dict[str, Event] = {}
    for event in sorted(events, key=lambda one: one["known"]):
        first.setdefault(event["id"], event)
    window, hop = (length // timedelta(microseconds=1) for length in (aggregation.window, aggregation.hop))
    counted = [
        one
        for one in first.values()
        if one["origin"] == origin and (at - window) // hop * hop <= one["event"] <= at and one["known"] <= at
    ]
    if not aggregation.column:
        return {len(counted)}
    counted = [one for one in counted if one[aggregation.column] is not None]
    values = [one[aggregation.column] for one in counted]
    match aggregation.function:
        case F.COUNT:
            return {len(values)}
        case _ if not values:
            return {None}
        case F.SUM | F.MIN | F.MAX as function:
            return {{F.SUM: sum, F.MIN: min, F.MAX: max}[function](values)}
        case F.MEAN:
            return {sum(values) / len(values)}
        case F.VAR | F.STD as function:
            measure = statistics.variance if function is F.VAR else statistics.stdev
            return {measure(values) if len(values) > 1 else None}
        case function:
            order = min if function is F.FIRST else max
            instant = order((one["event"], one["known"]) for one in counted)
            return {one[aggregation.column] for one in counted if (one["event"], one["known"]) == instant}


def is_one_of(found: Any, allowed: set[Any]) -> bool:
    if isinstance(found, float):
        return any(one is not None and math.isclose(found, one, rel_tol=1e-9, abs_tol=1e-7) for one in allowed)
    return found in allowed


def instant(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)


class History:
    """The events as the offline store has them."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def scan(self, _source: str) -> pl.LazyFrame:
        return pl.LazyFrame(self._events, schema=SCHEMA)


def push(store: OnlineStore, events: Sequence[Event], how: str, now: int) -> None:
    if how == "a frame":
        write_events(store, "st", pl.DataFrame(events, schema=SCHEMA), instant(now))
        return
    rows = [one | {"event": instant(one["event"]), "known": instant(one["known"])} for one in events]
    for some in [rows] if how == "a list" else [[row] for row in rows]:
        write_events(store, "st", some, instant(now))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("plainly") / "redis", maxmemory="64mb") as server:
        yield server


@pytest.mark.parametrize("seed", range(24))
def test_windows_are_what_the_semantics_say(server: EmbeddedRedis, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    catalog = a_catalog(dice)
    store = open_store(catalog, server.ensure_started(), at=instant(START), root=tmp_path)
    store.resp.call("FLUSHALL")
    now, events = START + dice.randint(0, 10**9), []
    try:
        for _ in range(dice.randint(3, 10)):
            now += dice.choice([0, 1, SECOND, MINUTE, 7 * MINUTE, 60 * MINUTE, 800 * MINUTE, dice.randint(0, 10**9)])
            if dice.random() < 0.15:
                now += 10 * SECOND  # what came ahead of the clock has happened
                rebuild_tiles(store, dice.choice(catalog.views).name, offline=History(events), at=instant(now))  # type: ignore[arg-type]
            else:
                some = some_events(dice, now, events)
                events += some
                push(store, some, dice.choice(["a frame", "a list", "one by one"]), now)
            for at in (now, now + dice.choice([1, 6 * SECOND, dice.randint(0, 10**10)])):
                assert_right(store, events, at)
    finally:
        store.close()


def assert_right(store: OnlineStore, events: Sequence[Event], at: int) -> None:
    for view in store.catalog.views:
        references = [f"{view.name}:{feature.name}" for feature in view.features]
        found = store.read_features(references, [{"origin": origin} for origin in ORIGINS], at=instant(at))
        for aggregation in view.aggregations:
            for origin, value in zip(ORIGINS, found.values[aggregation.name], strict=True):
                allowed = expected(aggregation, events, origin, at)
                assert is_one_of(value, allowed), (view.name, aggregation, origin, at, value, allowed)
