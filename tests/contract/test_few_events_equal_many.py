"""A push of a few events takes a short way, value by value; what it leaves in Redis is what the long way leaves."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from online_stores import open_store
from own_redis import redis_in

from tidemill.clock import to_micros
from tidemill.definitions.catalog import (
    Aggregation,
    AggregationFunction,
    Catalog,
    Entity,
    Field,
    Source,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import hop_for
from tidemill.errors import InputError
from tidemill.online.push import PushResult, write_events
from tidemill.online.push_few import MOST, FewRowsCheck
from tidemill.online.push_rows import EVENT, KNOWN, check_rows, instants_of, rows_of
from tidemill.online.store import OnlineStore
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_writer import Arrivals, TileWriter

F = AggregationFunction
NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WHOLE = {"delay": ValueType.INT64, "distance": ValueType.DOUBLE}
LESS = (F.COUNT, F.SUM, F.MEAN, F.MIN, F.MAX)
MORE = (*LESS, F.VAR, F.STD, F.FIRST, F.LAST)


def windowed(name: str, keys: tuple[str, ...], functions: tuple[F, ...], event_id: str | None = "id") -> View:
    features, aggregations = [], []
    for window in (HOUR, 24 * HOUR):
        for column, dtype in WHOLE.items():
            for function in functions:
                feature = f"{column}_{function}_{window // HOUR}h"
                kept = {F.COUNT: ValueType.INT64, F.MEAN: ValueType.DOUBLE, F.VAR: ValueType.DOUBLE}
                features.append(
                    Field(name=feature, dtype=kept.get(function, ValueType.DOUBLE if function is F.STD else dtype))
                )
                aggregations.append(
                    Aggregation(name=feature, function=function, column=column, window=window, hop=hop_for(window))
                )
    return View(
        name=name, entities=keys, join_keys=keys, features=tuple(features), source="departures", stream="departed",
        aggregations=tuple(aggregations), event_id=event_id,
    )  # fmt: skip


VIEWS = (
    windowed("origins", ("origin",), LESS),
    windowed("flights", ("origin", "flight"), MORE),
    windowed("everywhere", (), (F.COUNT, F.LAST), event_id=None),
)


def catalog(project: str) -> Catalog:
    return Catalog(
        project=project,
        entities=(
            Entity(name="origin", join_key="origin", dtype=ValueType.STRING),
            Entity(name="flight", join_key="flight", dtype=ValueType.INT64),
        ),
        sources=(Source(name="departures", path="departures", timestamp_field="event", known_field="known"),),
        streams=(Stream(name="departed", kind="push", source="departures"),),
        views=VIEWS,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("few") / "redis") as server:
        yield server.ensure_started()


@pytest.fixture(scope="module")
def stores(server: str) -> Iterator[Callable[[str], OnlineStore]]:
    """The store of a project of that name."""
    opened: dict[str, OnlineStore] = {}

    def store_of(project: str) -> OnlineStore:
        if project not in opened:
            opened[project] = open_store(catalog(project), server, at=NOW)
        return opened[project]

    yield store_of
    for store in opened.values():
        store.close()


def write_the_long_way(store: OnlineStore, rows: list[dict[str, Any]], at: datetime) -> tuple[int, int]:
    batch = check_rows(store.catalog, "departed", rows_of(rows), at, "5s")
    arrivals = Arrivals(event=instants_of(batch.kept[EVENT]), known=instants_of(batch.kept[KNOWN]), columns=batch.kept)
    repeated = int(TileWriter(store.resp, store.catalog, "departed").write(arrivals, at=to_micros(at)).sum())
    return len(batch.kept) - repeated, repeated


def tiles(
    store: OnlineStore, at: datetime, real: Callable[[float], Any] = float
) -> dict[tuple[str, bytes, int], list[tuple[Any, ...]]]:
    """The records in Redis by view, entity and hop: whole words as numbers, of floating-point ones what `real` says.

    Those that count at `at` in some window: the others are dropped whenever a string has to be written anew.
    """
    found = {}
    for view in VIEWS:
        log = TileLog.of(view)
        prefix = log.prefix(store.project)
        for key in store.resp.call("KEYS", prefix + b"*"):
            for hop, blob in enumerate(log.split(store.resp.call("GET", key))):
                words = np.frombuffer(blob, "<i8").reshape(-1, log.layouts[hop].words)
                found[view.name, key.removeprefix(prefix).removesuffix(store.project.encode()), hop] = [
                    tuple(
                        real(decoded(word)) if is_real else word
                        for word, is_real in zip(row, kinds(log, hop), strict=True)
                    )
                    for row in words.tolist()
                    if row[0] >= log.layouts[hop].oldest_tile(to_micros(at))
                ]
    return found


def kinds(log: TileLog, hop: int) -> list[bool]:
    """Which words are floating-point numbers."""
    real = set()
    for column in log.layouts[hop].columns:
        real |= {column.spread}
        if not column.needs.whole:
            ends = [end + 2 for end in (column.first, column.last) if end is not None]
            real |= {column.total, column.lowest, column.highest, *ends}
    return [word in real for word in range(log.layouts[hop].words)]


def decoded(word: int) -> float:
    return struct.unpack("<d", struct.pack("<q", word))[0]


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


@st.composite
def pushes(draw: st.DrawFn) -> list[tuple[datetime, list[dict[str, Any]]]]:
    """Some late, some ahead of the clock, some twice, some that no window holds any more."""
    found, sent, number, minute = [], [], 0, 0
    for _ in range(draw(st.integers(1, 4))):
        minute += draw(st.sampled_from([0, 1, 5, 65]))
        now = NOW + timedelta(minutes=minute)
        rows = []
        for _ in range(draw(st.integers(1, 6))):
            number += 1
            event = now - timedelta(minutes=draw(st.sampled_from([0, 0, 0, 1, 7, 90, 2_000])))
            event += timedelta(seconds=draw(st.sampled_from([0, 0, 2])))
            rows.append(
                {
                    "origin": draw(st.sampled_from(["JFK", "JFK", "Zürich"])),
                    "flight": draw(st.sampled_from([1, 2, -(2**63)])),
                    "event": event,
                    "known": draw(st.sampled_from([None, event, now])),
                    "delay": draw(st.one_of(st.none(), st.integers(-30, 300), st.just(2**55 + 1))),
                    "distance": draw(st.one_of(st.none(), st.floats(-1e4, 1e4))),
                    "id": draw(st.sampled_from([str(number), "long" * 20 + str(number), None])),
                    "gate": "B22",
                }
            )
        if sent and draw(st.booleans()):
            rows.append(draw(st.sampled_from(sent)))
        sent += rows
        found.append((now, rows))
    return found


@settings(max_examples=30)
@given(life=pushes(), form=st.sampled_from(["dicts", "frame", "texts"]))
def test_tiles_and_answers_are_those_of_the_long_way(
    stores: Callable[[str], OnlineStore], life: list[tuple[datetime, list[dict[str, Any]]]], form: str
) -> None:
    few, many = stores("few"), stores("many")
    few.resp.call("FLUSHALL")
    for at, rows in life:
        answer = write_events(few, "departed", given_as(form, rows), at)
        assert (answer.accepted, answer.duplicates) == write_the_long_way(many, rows, at)
        assert answer.ignored == ("gate",)
    now = life[-1][0]
    assert tiles(few, now) == tiles(many, now, near)
    expiries = [
        sorted(store.resp.call("TTL", key) // 60 for key in store.resp.call("KEYS", f"tm:{{{store.project}}}:w:*"))
        for store in (few, many)
    ]
    assert expiries[0] == pytest.approx(expiries[1], abs=1)


def given_as(form: str, rows: list[dict[str, Any]]) -> Any:
    if form == "frame":
        times = dict.fromkeys(("event", "known"), pl.Datetime("us", "UTC"))
        types = {"delay": pl.Int64, "distance": pl.Float64, "flight": pl.Int64, "id": pl.String}
        return pl.DataFrame(rows, schema_overrides=times | types)
    if form == "texts":
        return [row | {name: row[name] and row[name].isoformat() for name in ("event", "known")} for row in rows]
    return rows


def usual(number: int = 1, **others: Any) -> dict[str, Any]:
    return {
        "origin": "JFK", "flight": 1, "event": NOW, "known": NOW, "delay": number, "distance": 1.5, "id": str(number),
    } | others  # fmt: skip


def short_way(rows: Any) -> Any:
    check = FewRowsCheck.where_it_fits(catalog("few"), "departed")
    assert check is not None
    return check.rows(rows, NOW)


def test_the_usual_takes_the_short_way() -> None:
    assert len(short_way([usual(number) for number in range(MOST)])) == MOST
    assert len(short_way(pl.DataFrame([usual()]))) == 1


@pytest.mark.parametrize(
    "rows",
    [
        [usual(number) for number in range(MOST + 1)],
        [],
        [usual(origin=None)],
        [usual(origin=1)],
        [usual(origin="\ud800")],
        [usual(flight=True)],
        [usual(flight=2**63)],
        [usual(delay=1.0)],
        [usual(distance=float("nan"))],
        [usual(distance="far")],
        [usual(id=7)],
        [usual(event=None)],
        [usual(event="yesterday")],
        [usual(event=NOW.replace(tzinfo=None))],
        [usual(event=NOW + timedelta(seconds=1))],
        [usual(known=NOW + timedelta(seconds=1))],
        [usual(), {name: value for name, value in usual().items() if name != "delay"}],
        [{name: value for name, value in usual().items() if name != "origin"}],
        pl.DataFrame([usual()]).with_columns(pl.col("event").dt.cast_time_unit("ns")),
        pl.DataFrame([usual()]).with_columns(pl.col("delay").cast(pl.UInt8)),
        {"origin": ["JFK"]},
    ],
)
def test_whatever_is_unusual_goes_the_way_of_all_others(rows: Any) -> None:
    assert short_way(rows) is None


ODD = (
    None, 0, -1, 2**63, 2**64 - 1, -(2**63), 1.5, 1e308, float(2**70), True, "", "x", "1", "1e400", "\x00", "é" * 1_000,
    [], [1], ["a"], [None], {}, {"a": 1}, {"a": {"b": [1]}}, [[1], ["a"]], "2013-10-01", "2013-10-01T12:00:00+25:00",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2013-W40", 10**18,
)  # fmt: skip


@settings(max_examples=150)
@given(
    changes=st.lists(st.dictionaries(st.sampled_from(sorted(usual())), st.sampled_from(ODD), max_size=3), max_size=3)
)
@example(changes=[{"flight": {}}])
@example(changes=[{"origin": {"a": 1}}, {"origin": {}}])
def test_whatever_json_comes_is_taken_or_refused_with_a_reason(
    stores: Callable[[str], OnlineStore], changes: list[dict[str, Any]]
) -> None:
    store = stores("odd")
    rows = [usual(number) | change for number, change in enumerate([{}, *changes])]
    with contextlib.suppress(InputError):
        answer = write_events(store, "departed", rows, NOW)
        assert answer.accepted + answer.duplicates + len(answer.rejected) == len(rows)


def test_a_sketch_or_a_plain_view_on_the_stream_takes_the_long_way() -> None:
    known = catalog("few")
    counted = Aggregation(name="ids", function=F.COUNT_DISTINCT, column="delay", window=HOUR, hop=hop_for(HOUR))
    sketch = View(
        name="sketch", entities=("origin",), join_keys=("origin",), source="departures", stream="departed",
        features=(Field(name="ids", dtype=ValueType.INT64),), aggregations=(counted,),
    )  # fmt: skip
    plain = View(
        name="plain", entities=("origin",), join_keys=("origin",), source="departures", stream="departed",
        features=(Field(name="delay", dtype=ValueType.INT64),),
    )  # fmt: skip
    for view in (sketch, plain):
        other = Catalog(
            project="few", entities=known.entities, sources=known.sources, streams=known.streams, views=(*VIEWS, view)
        )
        assert FewRowsCheck.where_it_fits(other, "departed") is None


def test_a_repeat_is_told_whichever_way_it_comes(stores: Callable[[str], OnlineStore]) -> None:
    store = stores("twice")
    store.resp.call("FLUSHALL")
    several = [usual(number) for number in range(MOST + 5)]
    first: PushResult = write_events(store, "departed", several[:3], NOW)
    assert (first.accepted, first.duplicates) == (3, 0)
    assert write_events(store, "departed", several, NOW).duplicates == 3
    assert write_events(store, "departed", [several[-1], usual(99), usual(99)], NOW).duplicates == 2
