"""Section 6 of the semantics: the rows a materialization run writes."""

from __future__ import annotations

from workshop import Workshop, at


def test_latest_takes_the_interval_open_at_its_start(workshop: Workshop):
    workshop.simple({"id": [1, 2, 3], "event": [at(1), at(2), at(3)], "x": [10, 20, 30]})
    found = workshop.store.latest("v", start=at(1), end=at(2))
    assert found.rows() == [(2, 20, at(2), at(2))]


def test_latest_finds_late_rows_by_their_known_time(workshop: Workshop):
    rows = {"id": [1, 2, 3], "event": [at(1), at(1), at(6)], "known": [at(1), at(5.5), at(9)], "x": [10, 20, 30]}
    workshop.simple(rows)
    found = workshop.store.latest("v", start=at(5), end=at(7), known_after=at(5))
    assert found.rows() == [(2, 20, at(1), at(5.5))]


def test_latest_of_equal_times_is_the_one_known_last_then_the_last_position(workshop: Workshop):
    rows = {"id": [1, 1, 1], "event": [at(1)] * 3, "known": [at(3), at(3), at(2)], "x": [10, 11, 12]}
    workshop.simple(rows)
    assert workshop.store.latest("v", end=at(9))["x"].to_list() == [11]
