"""One row of windows, read the short way, is what many rows are, to the last bit and the type of every value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from online_stores import open_store

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import hop_for
from tidemill.online.push import write_events
from tidemill.online.resp import pack_command
from tidemill.online.store import OnlineStore

NOW = datetime(2013, 10, 8, tzinfo=UTC)
F, V = AggregationFunction, ValueType
HOURS = {"1h": timedelta(hours=1), "3h": timedelta(hours=3), "24h": timedelta(hours=24)}
PLAIN = [
    (F.COUNT, "delay", V.INT64), (F.COUNT, "", V.DOUBLE), (F.SUM, "delay", V.DOUBLE), (F.MEAN, "delay", V.DOUBLE),
    (F.MIN, "delay", V.DOUBLE), (F.MAX, "delay", V.DOUBLE), (F.SUM, "seats", V.INT64), (F.MEAN, "seats", V.DOUBLE),
    (F.MIN, "seats", V.INT64), (F.MAX, "seats", V.DOUBLE),
]  # fmt: skip
OTHERS = [
    (F.STD, "delay", V.DOUBLE), (F.LAST, "delay", V.DOUBLE), (F.FIRST, "seats", V.INT64), (F.COUNT, "seats", V.INT32),
    (F.MEAN, "delay", V.FLOAT), (F.COUNT_DISTINCT, "dest", V.INT64), (F.LAST, "event", V.UNIX_TIMESTAMP),
]  # fmt: skip


def windowed(name: str, keys: tuple[str, ...], wanted: list[tuple[AggregationFunction, str, ValueType]]) -> View:
    aggregations = tuple(
        Aggregation(name=f"{name}_{place}_{text}", function=function, column=column, window=window, hop=hop_for(window))
        for text, window in HOURS.items()
        for place, (function, column, _) in enumerate(wanted)
    )
    features = tuple(Field(name=item.name, dtype=wanted[int(item.name.split("_")[1])][2]) for item in aggregations)
    return View(
        name=name, entities=keys, join_keys=keys, features=features, source="departures", stream="departed",
        aggregations=aggregations, event_id="flight_id",
    )  # fmt: skip


VIEWS = (
    windowed("origins", ("origin",), PLAIN),
    windowed("routes", ("origin", "dest"), PLAIN),
    windowed("others", ("origin",), OTHERS),
)
CATALOG = Catalog(
    project="flights",
    entities=tuple(Entity(name=name, join_key=name, dtype=ValueType.STRING) for name in ("origin", "dest")),
    sources=(Source(name="departures", path="departures", timestamp_field="event"),),
    streams=(Stream(name="departed", kind="push", source="departures"),),
    views=VIEWS,
)
QUICK = [f"{view.name}:{feature.name}" for view in VIEWS[:2] for feature in reversed(view.features)]
ALL = [*QUICK[::3], *(f"others:{feature.name}" for feature in VIEWS[2].features)]


def events(count: int = 600) -> pl.DataFrame:
    """Over 30 hours; JFK is busy, of the others many tiles are missing."""
    random = np.random.default_rng(5)
    moment = to_micros(NOW) - np.sort(random.integers(0, 30 * 3_600_000_000, count))[::-1]
    return pl.DataFrame(
        {
            "origin": random.choice(["JFK", "LGA", "EWR"], count, p=[0.9, 0.08, 0.02]),
            "dest": random.choice([f"D{number}" for number in range(9)], count),
            "event": pl.Series(moment).cast(pl.Datetime("us", "UTC")),
            "delay": pl.Series(random.normal(0, 30, count)).scatter(range(0, count, 9), None).scatter(40, float("nan")),
            "seats": pl.Series(random.integers(-(2**20), 2**20, count)).scatter(range(0, count, 7), None),
            "flight_id": [str(number) for number in range(count)],
        }
    )


@pytest.fixture
def store(address: str):
    store = open_store(CATALOG, address, at=NOW)
    write_events(store, "departed", events(), NOW)
    yield store
    store.close()


@pytest.mark.parametrize("refs", [QUICK, ALL], ids=["plain functions", "others too"])
@pytest.mark.parametrize("later", [timedelta(0), timedelta(minutes=50), timedelta(hours=20), timedelta(days=3)])
def test_one_row_is_read_as_many_are(store: OnlineStore, refs: list[str], later: timedelta):
    rows = [
        {"origin": origin, "dest": f"D{number}"} for origin in ("JFK", "LGA", "EWR", "nowhere") for number in range(9)
    ]
    many = store.read_features(refs, rows, at=NOW + later)
    for place, row in enumerate(rows):
        one = store.read_features(refs, [row], at=NOW + later)
        for name in many.names:
            assert repr(one.values[name]) == repr(many.values[name][place : place + 1]), (name, row)
            assert list(one.statuses[name]) == list(many.statuses[name])[place : place + 1]
            assert list(one.event_times[name]) == list(many.event_times[name])[place : place + 1]


@pytest.mark.parametrize("refs", [QUICK, ALL], ids=["plain functions", "others too"])
def test_the_usual_row_takes_the_short_way(store: OnlineStore, refs: list[str]):
    plan = store.plan_of(refs)
    assert plan.single is not None
    commands = plan.single.commands({"origin": "JFK", "dest": "D1"})
    assert commands is not None
    assert plan.single.decode(store.resp.execute(commands, plan.single.replies), to_micros(NOW)) is not None


def test_events_that_came_before_their_time_take_the_long_way(store: OnlineStore):
    ahead = events()[-1:].with_columns(
        pl.col("event") + timedelta(seconds=3), origin=pl.lit("JFK"), flight_id=pl.lit("+")
    )
    write_events(store, "departed", ahead, NOW)
    for later in (timedelta(0), timedelta(seconds=5)):
        many = store.read_features(ALL, [{"origin": "JFK", "dest": "D1"}] * 2, at=NOW + later)
        one = store.read_features(ALL, [{"origin": "JFK", "dest": "D1"}], at=NOW + later)
        assert repr(one.to_dict()) == repr({name: values[:1] for name, values in many.to_dict().items()})
        assert {name: times[0] for name, times in one.event_times.items()} == {
            name: times[0] for name, times in many.event_times.items()
        }


def test_sums_that_may_be_too_large_take_the_long_way(store: OnlineStore):
    huge = events()[-2:].with_columns(origin=pl.lit("BIG"), dest=pl.lit("D1"), seats=pl.Series([2**60, 2**60 + 1]))
    write_events(store, "departed", huge.with_columns(pl.col("flight_id") + "h"), NOW)
    row = {"origin": "BIG", "dest": "D1"}
    one, many = store.read_features(QUICK, [row]), store.read_features(QUICK, [row, row])
    assert one.values["origins_6_24h"] == [2**61 + 1]
    assert repr(one.to_dict()) == repr({name: values[:1] for name, values in many.to_dict().items()})


def test_a_glance_sees_the_logs_of_a_whole_answer_and_nothing_else(store: OnlineStore):
    plan = store.plan_of(QUICK)
    assert plan.single is not None
    assert plan.single.glance is not None
    answer = b"$3\r\na\r\n\r\n$0\r\n\r\n"
    assert [bytes(log) for log in plan.single.glance(answer) or ()] == [b"a\r\n", b""]
    for end in range(len(answer)):
        assert plan.single.glance(answer[:end]) is None
    for other in (answer + b"$", b"$-1\r\n$0\r\n\r\n", b"-ERR no\r\n$0\r\n\r\n", b"*1\r\n$1\r\na\r\n", b":1\r\n:2\r\n"):
        assert plan.single.glance(other) is None


def test_an_answer_in_pieces_is_read_by_the_parser(store: OnlineStore):
    plan = store.plan_of(QUICK)
    assert plan.single is not None
    commands = plan.single.commands({"origin": "JFK", "dest": "D1"})
    assert commands is not None
    replies = store.resp.execute(commands, plan.single.replies)
    assert store.resp.ask(commands, plan.single.replies, plan.single.glance, 100) == (False, replies)
    assert store.resp.ask(pack_command("ECHO", "next"), 1) == (False, [b"next"])
