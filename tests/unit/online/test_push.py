"""Pushing events: what is taken, what is refused and why, and that nothing counts twice."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.errors import ConflictError, InputError, NotDefinedError, OnlineStoreUnavailableError
from tidemill.offline.store import OfflineStore
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.keys import key_layout
from tidemill.online.push import push, write_events
from tidemill.online.store import OnlineStore
from tidemill.online.tile_layout import rebuild_lock
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_rebuild import delete_all_tiles, delete_tiles, rebuild_stream, rebuild_tiles
from tidemill.online.tiles import TilePlan
from tidemill.settings import Settings

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
F = AggregationFunction


def delays(name: str = "origin_delays", *, key: str = "origin", event_id: str | None = "flight_id") -> View:
    wanted = (("departures_1h", F.COUNT, "", ValueType.INT64), ("delay_1h", F.SUM, "delay", ValueType.INT64))
    return View(
        name=name,
        entities=(key,),
        join_keys=(key,),
        features=tuple(Field(name=feature, dtype=dtype) for feature, _, _, dtype in wanted),
        source="departures",
        stream="departed",
        aggregations=tuple(
            Aggregation(name=feature, function=function, column=column, window=HOUR, hop=timedelta(minutes=5))
            for feature, function, column, _ in wanted
        ),
        event_id=event_id,
    )


def catalog_of(*views: View, project: str = "flights") -> Catalog:
    return Catalog(
        project=project,
        entities=tuple(Entity(name=name, join_key=name, dtype=ValueType.STRING) for name in ("origin", "carrier")),
        sources=(
            Source(name="departures", path="data/departures", timestamp_field="departed_at", known_field="known_at"),
        ),
        streams=(Stream(name="departed", kind="push", source="departures"),),
        views=views,
    )


def project_at(address: str, root: Path, *views: View, name: str = "flights") -> Any:
    """A project's parts as `push` uses them."""
    catalog = catalog_of(*(views or (delays(),)), project=name)
    settings = Settings()
    online = OnlineStore(
        address=address, project=name, catalog=catalog, settings=settings, root=root, clock=ManualClock(NOW)
    )
    offline = OfflineStore(root=root, catalog=catalog, ledger=None, settings=settings)
    return SimpleNamespace(catalog=catalog, settings=settings, online=online, offline=offline, name=name)


@pytest.fixture
def project(address: str, tmp_path: Path) -> Any:
    return project_at(address, tmp_path)


def departure(number: int, *, minutes: float = 1, **others: Any) -> dict[str, Any]:
    at = NOW - timedelta(minutes=minutes)
    return {
        "origin": "JFK", "carrier": "B6", "departed_at": at, "known_at": at, "delay": number, "flight_id": f"f{number}",
    } | others  # fmt: skip


def window(project: Any, view: str = "origin_delays", key: str = "JFK", at: datetime = NOW) -> tuple[int, int | None]:
    """(departures in the last hour, their delay) of an airport."""
    found = project.catalog.view(view)
    plan = TilePlan(project.name, [(found, ["departures_1h", "delay_1h"])])
    keys = plan.keys(0, key_layout(project.catalog, found).encode([key]))
    columns = plan.decode([project.online.resp.pipeline([("GET", name) for name in keys])], to_micros(at))[0]
    return columns.values["departures_1h"][0], columns.values["delay_1h"][0]


def test_pushed_events_count_at_once(project: Any) -> None:
    result = push(project, "departed", [departure(1), departure(2)], at=NOW)
    assert (result.accepted, result.duplicates, result.rejected) == (2, 0, ())
    assert window(project) == (2, 3)


def test_a_stream_is_found_by_the_source_behind_it(project: Any) -> None:
    push(project, "departures", [departure(1)], at=NOW)
    assert window(project) == (1, 1)


def test_a_repeated_event_id_changes_nothing(project: Any) -> None:
    push(project, "departed", [departure(1), departure(2)], at=NOW)
    again = push(project, "departed", [departure(2), departure(3), departure(3)], at=NOW)
    assert (again.accepted, again.duplicates) == (1, 2)
    assert window(project) == (3, 6)


def test_the_same_event_counts_once_in_every_view_of_its_stream(address: str, tmp_path: Path) -> None:
    project = project_at(address, tmp_path, delays(), delays("carrier_delays", key="carrier"))
    for _ in range(2):
        push(project, "departed", [departure(1)], at=NOW)
    assert window(project) == (1, 1)
    assert window(project, "carrier_delays", "B6") == (1, 1)


def test_sums_beyond_what_lua_counts_exactly_are_exact(project: Any) -> None:
    delays = [2**52 - 1, 2**52 + 1, 2**62, -(2**62), 2**61 + 1, -1, 3]
    for number, delay in enumerate(delays):
        push(project, "departed", [departure(number, delay=delay)], at=NOW)
    assert window(project) == (len(delays), sum(delays))


def test_an_event_is_known_again_as_long_as_it_could_count(project: Any) -> None:
    push(project, "departed", [departure(1)], at=NOW)
    for hours in (1, 7, 13, 24):
        again = push(project, "departed", [departure(1)], at=NOW + hours * HOUR)
        assert (again.accepted, again.duplicates) == (0, 1)
    behind = push(project, "departed", [departure(1)], at=NOW - 14 * HOUR)
    assert behind.accepted == 0


def test_event_ids_are_forgotten_in_time(project: Any) -> None:
    def sets() -> list[bytes]:
        return project.online.resp.call("KEYS", "tm:{flights}:e:departed:flight_id:*")

    for day in range(12):
        now = NOW + day * 24 * HOUR
        push(project, "departed", [departure(day, departed_at=now, known_at=now)], at=now)
    assert 2 <= len(sets()) <= 4
    assert all(25 * 3_600 < project.online.resp.call("TTL", name) < 50 * 3_600 for name in sets())


def test_a_longer_window_that_is_added_forgets_no_event(address: str, tmp_path: Path) -> None:
    before = project_at(address, tmp_path)
    push(before, "departed", [departure(1)], at=NOW)
    week = delays("origin_delays_7d")
    longer = replace(week, aggregations=tuple(replace(item, window=168 * HOUR, hop=HOUR) for item in week.aggregations))
    after = project_at(address, tmp_path, delays(), longer)
    again = push(after, "departed", [departure(1), departure(2)], at=NOW)
    assert (again.accepted, again.duplicates) == (1, 1)
    assert push(before, "departed", [departure(2)], at=NOW).duplicates == 1
    assert window(after) == (2, 3)


def test_long_ids_are_told_apart(project: Any) -> None:
    long = "x" * 100
    result = push(project, "departed", [departure(1, flight_id=long + "a"), departure(2, flight_id=long + "b")], at=NOW)
    assert (result.accepted, window(project)) == (2, (2, 3))


def test_more_events_than_one_batch_holds(project: Any) -> None:
    events = [departure(number, minutes=number % 50) for number in range(1, 1_001)]
    push(project, "departed", events, at=NOW)
    again = push(project, "departed", events, at=NOW)
    assert (again.accepted, again.duplicates) == (0, 1_000)
    assert window(project) == (1_000, 500_500)


def test_events_beyond_the_horizon_are_rejected_each_with_its_reason(project: Any) -> None:
    ahead = departure(2, minutes=-10)
    result = push(project, "departed", [departure(1), ahead, departure(3, origin=None)], at=NOW)
    assert result.accepted == 1
    assert [(row.row, row.reason) for row in result.rejected] == [
        (1, "its event time is further ahead of the clock than the push horizon of 5s"),
        (2, "a join key is null"),
    ]


def test_an_event_within_the_horizon_counts_from_its_own_time_on(project: Any) -> None:
    push(project, "departed", [departure(1, minutes=-3 / 60)], at=NOW)
    assert window(project) == (0, None)
    assert window(project, at=NOW + timedelta(seconds=3) - timedelta(microseconds=1)) == (0, None)
    assert window(project, at=NOW + timedelta(seconds=3)) == (1, 1)


def test_pushes_in_every_order_end_in_the_same_tiles(project: Any) -> None:
    """Late, out of order, several at once, and one of them sent twice."""
    pushes = [
        [departure(1, minutes=1), departure(2, minutes=30)],
        [departure(3, minutes=58)],
        [departure(4, minutes=1), departure(5, minutes=2 * 60)],
        [departure(2, minutes=30), departure(6, minutes=7)],
        [departure(7, minutes=33)],
    ]
    states = set()
    for order in itertools.permutations(pushes):
        project.online.resp.call("FLUSHALL")
        for events in order:
            push(project, "departed", events, at=NOW)
        (key,) = project.online.resp.call("KEYS", "tm:{flights}:w:*")
        states.add(project.online.resp.call("GET", key))
    assert len(states) == 1
    assert window(project) == (6, 1 + 2 + 3 + 4 + 6 + 7)
    assert window(project, at=NOW + 31 * timedelta(minutes=1)) == (4, 1 + 2 + 4 + 6)


def test_events_that_are_always_a_little_early_do_not_pile_up(project: Any) -> None:
    for second in range(200):
        now = NOW + timedelta(seconds=second)
        event = departure(second, departed_at=now + timedelta(seconds=2), known_at=now + timedelta(seconds=2))
        push(project, "departed", [event], at=now)
    assert window(project, at=NOW + timedelta(seconds=202))[0] == 200
    view = project.catalog.view("origin_delays")
    plan = TilePlan("flights", [(view, ["delay_1h"])])
    key = plan.keys(0, key_layout(project.catalog, view).encode(["JFK"]))[0]
    records = project.online.resp.call("STRLEN", key) // 48
    assert records <= 8


def test_a_missing_known_time_is_the_moment_of_the_push(project: Any) -> None:
    event = departure(1)
    del event["known_at"]
    push(project, "departed", [event], to="both", at=NOW)
    assert project.offline.scan("departures").collect()["known_at"].to_list() == [NOW]


def test_iso_times_of_any_zone_are_read(project: Any) -> None:
    event = departure(1, departed_at="2013-10-01T07:30:00-04:00", known_at="2013-10-01T11:31:00Z")
    push(project, "departed", [event], at=NOW)
    assert window(project) == (1, 1)


def test_unknown_columns_are_named_and_left_out(project: Any) -> None:
    result = push(project, "departed", [departure(1, gate="B22")], at=NOW)
    assert result.ignored == ("carrier", "gate")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delay": "late"}, "Column 'delay' is String"),
        ({"delay": 1.5}, "holds 1.5, but a feature of it is declared whole"),
        ({"departed_at": "yesterday"}, "holds a time that cannot be read"),
        ({"departed_at": 5}, "cannot be read as Datetime"),
        ({"origin": 1.5}, "cannot be read as String"),
    ],
)
def test_a_column_of_the_wrong_type_is_refused_before_anything_is_written(
    project: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        push(project, "departed", [departure(1) | change], to="both", at=NOW)
    assert project.online.resp.call("DBSIZE") == 0
    assert not (project.offline.root / "data").exists()


def test_a_missing_column_is_named(project: Any) -> None:
    event = departure(1)
    del event["delay"]
    with pytest.raises(InputError, match=r"lack 'delay'\. Found: origin"):
        push(project, "departed", [event], at=NOW)


def test_an_unknown_stream_or_target_is_refused(project: Any) -> None:
    with pytest.raises(NotDefinedError, match="Did you mean 'departed'"):
        push(project, "departd", [departure(1)], at=NOW)
    with pytest.raises(InputError, match="online, offline, both"):
        push(project, "departed", [departure(1)], to="somewhere", at=NOW)


def test_a_push_to_both_can_be_repeated_after_a_crash_between_them(
    project: Any, own_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = project_at(own_server.ensure_started(), project.offline.root)
    own_server.stop()
    with pytest.raises(OnlineStoreUnavailableError):
        push(gone, "departed", [departure(1)], to="both", at=NOW)
    for _ in range(2):
        push(project, "departed", [departure(1)], to="both", at=NOW + timedelta(seconds=1))
    assert project.offline.scan("departures").collect().height == 1
    assert window(project) == (1, 1)


def test_a_push_to_history_alone_leaves_the_online_store_alone(project: Any) -> None:
    push(project, "departed", [departure(1)], to="offline", at=NOW)
    assert project.offline.scan("departures").collect().height == 1
    assert project.online.resp.call("DBSIZE") == 0


def test_events_pushed_at_once_from_several_threads_are_all_counted_once(project: Any, address: str) -> None:
    events = [departure(number, minutes=number % 55) for number in range(400)]
    stores = [project_at(address, project.offline.root).online for _ in range(4)]
    threads = [
        threading.Thread(target=lambda store=store: [write_events(store, "departed", [e], NOW) for e in events[::4]])
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert window(project) == (100, sum(range(0, 400, 4)))


def test_old_tiles_are_cut_off_and_keys_expire(project: Any) -> None:
    for hour in range(8):
        now = NOW + hour * HOUR
        events = [
            departure(60 * hour + minute, departed_at=now - timedelta(minutes=minute), known_at=now)
            for minute in range(0, 60, 5)
        ]
        push(project, "departed", events, at=now)
    keys = project.online.resp.call("KEYS", "tm:{flights}:w:*")
    assert len(keys) == 1
    assert project.online.resp.call("STRLEN", keys[0]) // 48 <= 30
    assert all(project.online.resp.call("TTL", key) > 3_600 for key in project.online.resp.call("KEYS", "*"))
    assert window(project, at=NOW + 7 * HOUR)[0] == 12 + 1


def test_a_push_waits_for_a_rebuild_to_end(project: Any) -> None:
    project.online.resp.call("SET", rebuild_lock("flights", "origin_delays"), "somebody", "EX", 60)
    with pytest.raises(ConflictError, match="are being rebuilt"):
        push(project, "departed", [departure(1)], at=NOW)
    with pytest.raises(ConflictError, match="being rebuilt already"):
        rebuild_tiles(project.online, "origin_delays", offline=project.offline, at=NOW)
    project.online.resp.call("DEL", rebuild_lock("flights", "origin_delays"))
    push(project, "departed", [departure(1)], at=NOW)
    assert window(project) == (1, 1)


def test_rebuilding_from_history_equals_having_streamed_byte_for_byte(project: Any, tmp_path: Path) -> None:
    events = [departure(number, minutes=number) for number in range(70, 0, -1)]
    for start in range(0, 70, 7):
        at = NOW - timedelta(minutes=63 - start)
        push(project, "departed", events[start : start + 7], to="both", at=at)
    keys = project.online.resp.call("KEYS", "tm:{flights}:w:*")
    log = TileLog.of(project.catalog.view("origin_delays"))
    streamed = log.split(project.online.resp.call("GET", keys[0]))
    result = rebuild_stream(project.online, "departed", offline=project.offline, at=NOW)
    rebuilt = log.split(project.online.resp.call("GET", keys[0]))
    assert result.events == 60
    assert len(rebuilt[0]) > 10 * log.layouts[0].record_bytes
    assert [one[-len(other) :] for one, other in zip(streamed, rebuilt, strict=True)] == rebuilt
    assert push(project, "departed", events[-60:], at=NOW).accepted == 0


def test_a_project_never_touches_another_whose_name_ends_alike(address: str, tmp_path: Path) -> None:
    prod, mine = (project_at(address, tmp_path / name, name=name) for name in ("prod", "my_prod"))
    for project in (prod, mine):
        push(project, "departed", [departure(1)], at=NOW)
    assert delete_all_tiles(prod.online) == 3  # a tile, and where its event's id is remembered
    assert window(prod) == (0, None)
    assert window(mine) == (1, 1)


def test_deleting_a_view_leaves_the_others(address: str, tmp_path: Path) -> None:
    project = project_at(address, tmp_path, delays(), delays("origin_delays_2"))
    push(project, "departed", [departure(1)], at=NOW)
    assert delete_tiles(project.online, "origin_delays") == 1
    assert window(project) == (0, None)
    assert window(project, "origin_delays_2") == (1, 1)


def test_a_value_that_is_no_tile_is_read_as_not_found_and_replaced_by_the_next_push(project: Any) -> None:
    push(project, "departed", [departure(1)], at=NOW)
    key = project.online.resp.call("KEYS", "tm:{flights}:w:*")[0]
    project.online.resp.call("SET", key, "nonsense")
    plan = TilePlan("flights", [(project.catalog.view("origin_delays"), ["delay_1h"])])
    columns = plan.decode([[b"nonsense"]], to_micros(NOW))[0]
    assert (columns.values["delay_1h"], columns.found, columns.broken) == ([None], [False], 1)
    push(project, "departed", [departure(2)], at=NOW)
    assert window(project) == (1, 2)


@pytest.mark.parametrize("many", [1, 40])
def test_a_key_that_is_somebody_else_s_stops_a_push_before_any_of_its_events_counts_as_seen(
    address: str, tmp_path: Path, many: int
) -> None:
    project = project_at(address, tmp_path, delays(), delays("origin_delays_2"))
    push(project, "departed", [departure(0)], at=NOW)
    key = project.online.resp.call("KEYS", "tm:{flights}:w:origin_delays_2:*")[0]
    project.online.resp.pipeline([("DEL", key), ("SADD", key, "theirs")])
    events = [departure(number) for number in range(1, 1 + many)]
    for _ in range(2):
        with pytest.raises(ConflictError, match="something of another kind"):
            push(project, "departed", events, at=NOW)
    assert window(project) == (1, 0)
    assert project.online.resp.call("SMEMBERS", key) == [b"theirs"]
    project.online.resp.call("DEL", key)
    assert push(project, "departed", events, at=NOW).duplicates == 0
    assert window(project) == (1 + many, sum(range(1 + many)))
    assert window(project, "origin_delays_2") == (many, sum(range(1 + many)))


def test_rows_may_come_as_a_frame_in_nanoseconds_without_a_zone(project: Any) -> None:
    frame = pl.DataFrame([departure(1)]).with_columns(
        pl.col("departed_at", "known_at").dt.replace_time_zone(None).dt.cast_time_unit("ns")
    )
    push(project, "departed", frame, at=NOW)
    assert window(project) == (1, 1)
