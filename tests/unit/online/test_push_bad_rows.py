"""The rows of a push: in which shapes they are read, and which are refused and why."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from push_parts import NOW, departure, window

from tidemill.errors import InputError, NotDefinedError
from tidemill.online.push import push


def test_events_beyond_the_horizon_are_rejected_each_with_its_reason(project: Any) -> None:
    ahead = departure(2, minutes=-10)
    result = push(project, "departed", [departure(1), ahead, departure(3, origin=None)], at=NOW)
    assert result.accepted == 1
    assert [(row.row, row.reason) for row in result.rejected] == [
        (1, "its event time is further ahead of the clock than the push horizon of 5s"),
        (2, "a join key is null"),
    ]


def test_a_missing_known_time_is_the_moment_of_the_push(project: Any) -> None:
    event = departure(1)
    del event["known_at"]
    push(project, "departed", [event], to="both", at=NOW)
    assert project.offline.scan("departures").collect()["known_at"].to_list() == [NOW]


def test_iso_times_of_any_zone_are_read(project: Any) -> None:
    event = departure(1, departed_at="2013-10-01T07:30:00-04:00", known_at="2013-10-01T11:31:00Z")
    push(project, "departed", [event], at=NOW)
    assert window(project) == (1, 1)


def test_rows_may_come_as_a_frame_in_nanoseconds_without_a_zone(project: Any) -> None:
    frame = pl.DataFrame([departure(1)]).with_columns(
        pl.col("departed_at", "known_at").dt.replace_time_zone(None).dt.cast_time_unit("ns")
    )
    push(project, "departed", frame, at=NOW)
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
