"""Runs, backfills, retries and pushes may arrive in any order and at the same time: the store ends the same."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from online_stores import open_store

from tidemill.clock import to_micros
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, ValueType, View
from tidemill.online import writer
from tidemill.online.codec import encode_timestamp
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.keys import hash_field, key_layout, known_field, time_field
from tidemill.online.store import OnlineStore

T0 = datetime(2013, 10, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
VIEW = View(
    name="v",
    entities=("e",),
    join_keys=("id",),
    features=(Feature(name="x", dtype=ValueType.INT64), Feature(name="s", dtype=ValueType.STRING)),
    source="s",
)
WIDE = View(
    name="wide",
    entities=("e",),
    join_keys=("id",),
    features=tuple(Feature(name=f"x{n}", dtype=ValueType.INT64) for n in range(90)),
    source="s",
)
CATALOG = Catalog(
    project="p",
    entities=(Entity(name="e", join_key="id", dtype=ValueType.INT64),),
    views=(VIEW, WIDE),
    services=(Service(name="s", projections=(Projection(view="v", features=("x", "s")),)),),
)

Fact = tuple[int, int, int | None, int]
"""Entity, minutes of the event, minutes of when it was known (None: never told), and the value."""


def frame(facts: list[Fact]) -> pl.DataFrame:
    times = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        {
            "id": [entity for entity, *_ in facts],
            "x": [value for *_, value in facts],
            "s": [str(value) for *_, value in facts],
            "__event_time": pl.Series([T0 + event * MINUTE for _, event, *_ in facts], dtype=times),
            "__known_time": pl.Series(
                [None if known is None else T0 + known * MINUTE for _, _, known, _ in facts], dtype=times
            ),
        }
    )


@pytest.fixture(params=["feast", "packed", "feast, however few rows"])
def store(request: pytest.FixtureRequest, redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In either layout; and in Feast's with every row first tried in the ways that are meant for many."""
    layout, _, however_few = request.param.partition(", ")
    if however_few:
        monkeypatch.setattr(writer, "_FEW_ROWS", 0)
    store = open_store(CATALOG, redis_server.ensure_started(), at=T0, root=tmp_path, online_layout=layout)
    yield store
    store.close()


def state(store: OnlineStore) -> dict:
    with redis.Redis.from_url(store.address) as client:
        return {key: client.hgetall(key) for key in client.scan_iter()}


def cleared(store: OnlineStore) -> OnlineStore:
    store.resp.call("FLUSHALL")
    return store


FACTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([-70_000_000, -2, 0, 1, 2]),
        st.one_of(st.none(), st.integers(0, 3)),
        st.integers(0, 3),
    ),
    max_size=6,
)


@given(writes=st.lists(FACTS, min_size=2, max_size=4), data=st.data())
@settings(max_examples=80)
def test_every_order_of_writers_ends_in_the_same_state(
    store: OnlineStore, writes: list[list[Fact]], data: st.DataObject
):
    """Each writer learned its facts at its own instant: the cut-off of a run or a backfill, the moment of a push."""
    batches = [(learned, _told_once(facts)) for learned, facts in enumerate(writes)]
    orders = list(itertools.permutations(batches))
    states = []
    for order in (orders[0], data.draw(st.sampled_from(orders)), data.draw(st.sampled_from(orders))):
        cleared(store)
        for learned, facts in order:
            if facts:
                store.write("v", frame(facts), learned=T0 + learned * MINUTE)
        states.append(state(store))
    assert states[1:] == states[:-1]


def _told_once(facts: list[Fact]) -> list[Fact]:
    """One writer tells one value of a fact."""
    return list(
        {(entity, event, known): (entity, event, known, value) for entity, event, known, value in facts}.values()
    )


@given(writes=st.lists(FACTS, min_size=1, max_size=4))
@settings(max_examples=40)
def test_the_winner_is_the_greatest_event_then_known_then_learned(store: OnlineStore, writes: list[list[Fact]]):
    cleared(store)
    best: dict[int, tuple] = {}
    for learned, facts in enumerate(map(_told_once, writes)):
        for entity, event, known, value in facts:
            rank = (event, -1 if known is None else known, learned)
            if entity not in best or rank > best[entity][0]:
                best[entity] = (rank, value)
        if facts:
            store.write("v", frame(facts), learned=T0 + learned * MINUTE)
    found = store.read("s", [{"id": entity} for entity in range(3)])
    assert found.values["x"] == [best[entity][1] if entity in best else None for entity in range(3)]


def test_writers_at_the_same_time_end_as_if_they_had_come_in_order(store: OnlineStore):
    facts = [[(entity, event, event, event) for entity in range(500)] for event in range(8)]
    cleared(store)
    store.write("v", frame(facts[-1]), learned=T0)
    expected = state(store)
    cleared(store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: store.write("v", frame(one), learned=T0), [*facts, *facts[::-1]]))
    assert state(store) == expected


def test_what_became_of_each_row_is_counted(store: OnlineStore):
    cleared(store)
    store.write("v", frame([(1, 0, 0, 5), (2, 9, 9, 5), (4, 0, 0, 5)]), learned=T0)
    result = store.write("v", frame([(1, 0, 0, 5), (2, 8, 9, 5), (3, 0, 0, 5), (4, 1, 1, 6)]), learned=T0)
    assert (result.written, result.unchanged, result.skipped_older) == (2, 1, 1)


def test_a_correction_at_an_equal_event_time_is_written(store: OnlineStore):
    cleared(store)
    store.write("v", frame([(1, 0, 0, 5)]), learned=T0)
    store.write("v", frame([(1, 0, 3, 6)]), learned=T0)
    assert store.read("s", [{"id": 1}]).values["x"] == [6]
    store.write("v", frame([(1, 0, 1, 7)]), learned=T0 + MINUTE)
    assert store.read("s", [{"id": 1}]).values["x"] == [6]


def test_a_script_forgotten_by_redis_is_loaded_again(store: OnlineStore):
    cleared(store)
    store.write("v", frame([(1, 0, 0, 5)]))
    store.resp.call("SCRIPT", "FLUSH")
    assert store.write("v", frame([(1, 1, 1, 6)])).written == 1


def test_a_view_with_more_features_than_lua_has_names_for_is_written(store: OnlineStore):
    cleared(store)
    rows = pl.DataFrame({"id": [1, 2]} | {f"x{n}": [n, -n] for n in range(90)}).with_columns(
        pl.lit(T0).cast(pl.Datetime("us", "UTC")).alias("__event_time"),
        pl.lit(T0).cast(pl.Datetime("us", "UTC")).alias("__known_time"),
    )
    assert store.write("wide", rows).written == 2
    assert store.write("wide", rows).unchanged == 2
    found = store.read_features([f"wide:x{n}" for n in range(90)], [{"id": 2}])
    assert [found.values[f"x{n}"] for n in range(90)] == [[-n] for n in range(90)]


def test_a_load_of_many_rows_is_complete(store: OnlineStore):
    cleared(store)
    many = frame([(entity, 0, 0, entity % 1_000) for entity in range(45_001)])
    assert store.write("v", many).written == 45_001
    assert store.write("v", many).unchanged == 45_001
    found = store.read("s", [{"id": entity} for entity in (0, 19_999, 20_000, 45_000)])
    assert found.values["x"] == [0, 999, 0, 0]


@pytest.mark.parametrize("times", [1, 30])
def test_entities_created_whole_are_what_compared_ones_are(store: OnlineStore, times: int):
    """Up to 2,000 rows are compared one by one; more are created whole. Texts of 30 words are too long for that."""
    rows = told(6_000, times)
    cleared(store)
    for part in rows.iter_slices(1_500):
        store.write("v", part)
    expected = state(store)
    cleared(store)
    assert store.write("v", rows).written == rows.height
    assert state(store) == expected


def told(entities: int, times: int = 1) -> pl.DataFrame:
    facts = [(entity, entity % 5, None if entity % 7 == 0 else 9, entity**3) for entity in range(entities)]
    facts.append((-5, -70_000_000, 0, -1))
    text = pl.when(pl.col("id") % 3 == 0).then(None).otherwise(pl.concat_str([pl.col("s")] * times))
    return frame(facts).with_columns(text.alias("s"))


def test_an_entity_that_was_there_already_is_compared_in_a_load_of_new_ones(store: OnlineStore):
    cleared(store)
    store.write("v", frame([(7, 9, 9, 77), (8, 0, 0, 88), (10, 0, 9, 1_000)]), learned=T0)
    result = store.write("v", told(6_000), learned=T0)
    assert (result.written, result.unchanged, result.skipped_older) == (5_999, 1, 1)
    assert store.read("s", [{"id": entity} for entity in (7, 8, 10)]).values["x"] == [77, 512, 1_000]


def test_a_key_that_another_view_made_keeps_that_view(store: OnlineStore):
    cleared(store)
    wide = wide_rows(3_000)
    store.write("wide", wide)
    store.write("v", told(6_000))
    assert store.read_features(["v:x", "wide:x3"], [{"id": 2}]).values == {"x": [8], "x3": [2]}
    assert store.write("wide", wide_rows(6_000)).written == 3_000


def wide_rows(entities: int) -> pl.DataFrame:
    at = pl.lit(T0).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"id": range(entities)} | {f"x{n}": range(entities) for n in range(90)}).with_columns(
        at.alias("__event_time"), at.alias("__known_time")
    )


def test_of_two_rows_of_a_new_entity_the_newest_stays(store: OnlineStore):
    cleared(store)
    rows = pl.concat([told(6_000), frame([(5, 7, 9, -1), (6, 0, 0, -2)]), told(6_000)])
    assert store.write("v", rows).written == 6_002
    assert store.read("s", [{"id": 5}, {"id": 6}]).values["x"] == [-1, 216]


def test_new_entities_are_written_where_redis_may_not_restore(store: OnlineStore):
    rows = told(6_000)
    store.resp.call("CONFIG", "RESETSTAT")
    cleared(store).write("v", rows)
    expected = state(store)
    assert restored(store) == rows.height
    store.resp.call("ACL", "SETUSER", "careful", "on", "nopass", "~*", "+@all", "-restore")
    careful = OnlineStore(
        address=store.address.replace("unix://", "unix://careful:any@"),
        project="p",
        catalog=CATALOG,
        settings=store.settings,
        root=store.root,
        clock=store.clock,
    )
    cleared(store)
    assert careful.write("v", rows).written == rows.height
    assert state(store) == expected
    assert careful.write("v", later(rows)).written == rows.height
    careful.close()
    store.resp.call("ACL", "DELUSER", "careful")
    assert restored(store) == rows.height


def later(rows: pl.DataFrame) -> pl.DataFrame:
    """The same entities an hour later, with another value."""
    hour = pl.duration(hours=1)
    return rows.with_columns(pl.col("x") + 1, pl.col("__event_time") + hour, pl.col("__known_time") + hour)


only_feast = pytest.mark.parametrize("store", ["feast"], indirect=True)


@only_feast
def test_entities_replaced_whole_are_what_compared_ones_are(store: OnlineStore):
    rows, newer = told(6_000), later(told(6_000))
    cleared(store).write("v", rows)
    for part in newer.iter_slices(1_500):
        store.write("v", part)
    expected = state(store)
    cleared(store).write("v", rows)
    store.resp.call("CONFIG", "RESETSTAT")
    assert store.write("v", newer).written == rows.height
    assert restored(store) == rows.height
    assert state(store) == expected
    again = [store.write("v", some) for some in (rows, newer)]
    assert [(one.written, one.unchanged, one.skipped_older) for one in again] == [
        (0, 0, rows.height),
        (0, rows.height, 0),
    ]
    assert state(store) == expected


@only_feast
def test_what_else_lies_on_a_key_outlives_a_replacement(store: OnlineStore):
    """Another view's fields; as many fields as the view has, of which one is not its own; what Feast wrote since."""
    cleared(store).write("v", told(6_000))
    store.write("wide", wide_rows(100))
    layout = key_layout(CATALOG, VIEW)
    added, another, newest = (layout.encode([entity]) for entity in (200, 202, 205))
    with redis.Redis.from_url(store.address) as client:
        client.hset(added, "theirs", "kept")
        instants = client.hget(another, known_field("v"))
        assert instants is not None
        client.hset(another, mapping={known_field("v"): instants[:24] + b"else", "theirs": "kept"})
        client.hdel(another, hash_field("v", "s"))
        client.hset(newest, time_field("v"), encode_timestamp(to_micros(T0 + timedelta(days=1))))
        result = store.write("v", later(told(6_000)))
        assert (result.written, result.skipped_older) == (6_000, 1)
        assert store.read_features(["v:x", "wide:x3"], [{"id": 2}]).values == {"x": [9], "x3": [2]}
        assert client.hget(added, "theirs") == client.hget(another, "theirs") == b"kept"
    found = store.read("s", [{"id": entity} for entity in (200, 202, 205)])
    assert found.values["x"] == [200**3 + 1, 202**3 + 1, 205**3]
    assert found.values["s"][1] == str(202**3)


@only_feast
def test_runs_and_pushes_at_the_same_time_end_as_if_they_had_come_in_order(store: OnlineStore):
    facts = [frame([(entity, event, event, event) for entity in range(2_500)]) for event in range(4)]
    writes = [rows for rows in facts for rows in (rows, *rows.iter_slices(1_250))]
    cleared(store).write("v", facts[-1], learned=T0)
    expected = state(store)
    cleared(store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: store.write("v", one, learned=T0), [*writes, *writes[::-1]]))
    assert state(store) == expected


@only_feast
def test_a_replaced_key_lives_as_long_as_one_that_is_written(store: OnlineStore):
    short = replace(CATALOG, views=(replace(VIEW, ttl=timedelta(minutes=10)),))
    expiring = OnlineStore(
        address=store.address, project="p", catalog=short, settings=store.settings, root=store.root, clock=store.clock
    )
    cleared(store).write("v", told(3_000))
    assert expiring.write("v", later(told(3_000))).written == 3_001
    expiring.close()
    with redis.Redis.from_url(store.address) as client:
        left = [client.ttl(key) for key in client.scan_iter()]
    assert len(left) == 3_001
    assert 600 + 3_600 - 60 < min(left) <= max(left) <= 600 + 3_600 + 1


def test_a_long_run_reaches_redis_in_short_scripts(store: OnlineStore):
    """Whoever reads meanwhile waits for a script or two: each of a few rows, and of one where rows are wide."""
    cleared(store)
    store.write("v", told(6_000))
    store.write("wide", wide_rows(2_500))
    store.resp.call("CONFIG", "RESETSTAT")
    store.write("v", told(6_000))
    assert calls(store, "evalsha") > 6_000 / 40
    store.resp.call("CONFIG", "RESETSTAT")
    store.write("wide", wide_rows(2_500))
    assert calls(store, "evalsha") > 2_500 / 5


def restored(store: OnlineStore) -> int:
    return calls(store, "restore")


def calls(store: OnlineStore, command: str) -> int:
    found = store.resp.call("INFO", "commandstats").decode()
    return int(found.split(f"cmdstat_{command}:calls=")[1].split(",")[0])
