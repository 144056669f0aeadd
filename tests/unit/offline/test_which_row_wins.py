"""Section 2 of the semantics: the candidates of a row of the spine, and the one that wins."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from workshop import Workshop, ask, at


def test_event_and_known_time_count_up_to_and_including_the_request(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(1), at(2)], "known": [at(3), at(4)], "x": [10, 11]})
    spine = ask((1, at(3)), (1, at(3) - timedelta(microseconds=1)), (1, at(4)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [10, None, 11]


def test_a_value_exactly_as_old_as_the_ttl_still_counts(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, ttl=timedelta(hours=2))
    spine = ask((1, at(2)), (1, at(2) + timedelta(microseconds=1)))
    assert workshop.collect("v:x", spine)["x"].to_list() == [10, None]


def test_a_ttl_of_zero_never_expires_a_value(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    assert workshop.collect("v:x", ask((1, at(1e5))))["x"].to_list() == [10]


def test_among_equal_event_times_the_one_known_last_wins(workshop: Workshop):
    workshop.simple({"id": [1, 1, 1], "event": [at(1)] * 3, "known": [at(3), at(2), at(9)], "x": [10, 11, 12]})
    assert workshop.collect("v:x", ask((1, at(5)), (1, at(2)), (1, at(9))))["x"].to_list() == [10, 11, 12]


def test_among_equal_times_the_last_position_wins(workshop: Workshop):
    workshop.simple({"id": [1] * 50, "event": [at(1)] * 50, "known": [at(2)] * 50, "x": list(range(50))})
    assert workshop.collect("v:x", ask((1, at(5))))["x"].to_list() == [49]


def test_a_null_known_time_loses_a_tie_and_hides_nothing(workshop: Workshop):
    rows = pl.DataFrame({"id": [1, 1, 2], "event": [at(1)] * 3, "known": [at(2), None, None], "x": [10, 11, 12]})
    workshop.simple(rows)
    assert workshop.collect("v:x", ask((1, at(5)), (2, at(5))))["x"].to_list() == [10, 12]


def test_a_correction_is_seen_only_from_when_it_was_known(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(1), at(1)], "known": [at(1), at(5)], "x": [10, 99]})
    assert workshop.collect("v:x", ask((1, at(4)), (1, at(6))))["x"].to_list() == [10, 99]


def test_rows_not_known_yet_are_passed_over_however_many_there_are(workshop: Workshop):
    events = [at(hour) for hour in range(200)]
    workshop.simple({"id": [1] * 200, "event": events, "known": [at(0)] + [at(1000)] * 199, "x": list(range(200))})
    assert workshop.collect("v:x", ask((1, at(500)), (1, at(1000))))["x"].to_list() == [0, 199]


def test_without_the_known_filter_known_times_only_break_ties(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(1), at(1)], "known": [at(50), at(60)], "x": [10, 11]})
    assert workshop.collect("v:x", ask((1, at(2))), filter_known=False)["x"].to_list() == [11]
    assert workshop.collect("v:x", ask((1, at(2))))["x"].to_list() == [None]


def test_null_keys_match_nothing_even_null_keys(workshop: Workshop):
    workshop.simple({"id": [None, 1], "event": [at(0)] * 2, "x": [10, 11]})
    assert workshop.collect("v:x", ask((None, at(1)), (1, at(1))))["x"].to_list() == [None, 11]


def test_rows_of_the_source_without_an_event_time_never_win(workshop: Workshop):
    rows = pl.DataFrame({"id": [1, 1], "event": [at(0), None], "x": [10, 11]})
    workshop.simple(rows)
    assert workshop.collect("v:x", ask((1, at(1))))["x"].to_list() == [10]


def test_a_spine_column_named_like_the_sources_timestamp_is_left_alone(workshop: Workshop):
    """Feast takes such a column for the feature's time, which leaks the future."""
    workshop.simple({"id": [1, 1], "event": [at(0), at(5)], "x": [10, 11]})
    spine = ask((1, at(1)), event=[at(9)], known=[at(9)])
    assert workshop.collect("v:x", spine).rows() == [(1, at(1), at(9), at(9), 10)]
