"""An event that is sent again is known by its id and counts no second time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from push_parts import HOUR, NOW, OpenProject, delays, departure, window

from tidemill.online.push import push


def test_a_repeated_event_id_changes_nothing(project: Any) -> None:
    push(project, "departed", [departure(1), departure(2)], at=NOW)
    again = push(project, "departed", [departure(2), departure(3), departure(3)], at=NOW)
    assert (again.accepted, again.duplicates) == (1, 2)
    assert window(project) == (3, 6)


def test_the_same_event_counts_once_in_every_view_of_its_stream(project_at: OpenProject) -> None:
    project = project_at(delays(), delays("carrier_delays", key="carrier"))
    for _ in range(2):
        push(project, "departed", [departure(1)], at=NOW)
    assert window(project) == (1, 1)
    assert window(project, "carrier_delays", "B6") == (1, 1)


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


def test_a_longer_window_that_is_added_forgets_no_event(project_at: OpenProject) -> None:
    before = project_at()
    push(before, "departed", [departure(1)], at=NOW)
    week = delays("origin_delays_7d")
    longer = replace(week, aggregations=tuple(replace(item, window=168 * HOUR, hop=HOUR) for item in week.aggregations))
    after = project_at(delays(), longer)
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
