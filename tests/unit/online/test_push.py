"""Pushing events: they count at once, from their own time on, in whatever order and from however many threads."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta
from typing import Any

import pytest
from push_parts import HOUR, NOW, OpenProject, departure, window

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.keys import key_layout
from tidemill.online.push import push, write_events
from tidemill.online.tiles import TilePlan


def test_pushed_events_count_at_once(project: Any) -> None:
    result = push(project, "departed", [departure(1), departure(2)], at=NOW)
    assert (result.accepted, result.duplicates, result.rejected) == (2, 0, ())
    assert window(project) == (2, 3)


def test_a_stream_is_found_by_the_source_behind_it(project: Any) -> None:
    push(project, "departures", [departure(1)], at=NOW)
    assert window(project) == (1, 1)


def test_sums_beyond_what_lua_counts_exactly_are_exact(project: Any) -> None:
    delays = [2**52 - 1, 2**52 + 1, 2**62, -(2**62), 2**61 + 1, -1, 3]
    for number, delay in enumerate(delays):
        push(project, "departed", [departure(number, delay=delay)], at=NOW)
    assert window(project) == (len(delays), sum(delays))


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
    key = plan.key(0, key_layout(project.catalog, view).encode(["JFK"]))
    records = project.online.resp.call("STRLEN", key) // 48
    assert records <= 8


def test_a_push_to_both_can_be_repeated_after_a_crash_between_them(
    project: Any, project_at: OpenProject, own_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = project_at(address=own_server.ensure_started())
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


def test_events_pushed_at_once_from_several_threads_are_all_counted_once(project: Any, project_at: OpenProject) -> None:
    events = [departure(number, minutes=number % 55) for number in range(400)]
    stores = [project_at().online for _ in range(4)]
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
