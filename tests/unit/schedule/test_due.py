"""What is due, and when a failed run is tried again: pure arithmetic on instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidemill.definitions import CatchUp, Schedule
from tidemill.schedule.due import due_runs, jitter_of, wait_after

HOURLY = Schedule(cron="0 * * * *")


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2013, 10, 1, hour, minute, tzinfo=UTC)


def runs(schedule: Schedule, *, done: datetime | None, now: datetime) -> list[tuple[datetime, datetime]]:
    return [(due.start, due.tick) for due in due_runs(schedule, name="weather", done=done, at=now)]


def test_nothing_is_due_before_the_next_tick_and_one_run_at_it() -> None:
    assert runs(HOURLY, done=at(3), now=at(3, 59)) == []
    assert runs(HOURLY, done=at(3), now=at(4)) == [(at(3), at(4))]


def test_what_never_ran_starts_with_its_newest_tick() -> None:
    assert runs(HOURLY, done=None, now=at(4, 30)) == [(at(3), at(4))]


def test_work_done_ahead_of_its_schedule_is_not_done_again() -> None:
    assert runs(HOURLY, done=at(9), now=at(4)) == []


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        (CatchUp.LATEST, [(at(3), at(6))]),
        (CatchUp.ALL, [(at(3), at(4)), (at(4), at(5)), (at(5), at(6))]),
        (CatchUp.SKIP, []),
    ],
)
def test_missed_ticks_are_caught_up_with_as_declared(
    catch_up: CatchUp, expected: list[tuple[datetime, datetime]]
) -> None:
    schedule = Schedule(cron="0 * * * *", catch_up=catch_up)
    assert runs(schedule, done=at(3), now=at(6, 30)) == expected


def test_after_skipping_the_next_tick_does_the_missed_work_as_well() -> None:
    assert runs(Schedule(cron="0 * * * *", catch_up=CatchUp.SKIP), done=at(3), now=at(7)) == [(at(3), at(7))]


def test_the_lag_does_not_put_the_start_off() -> None:
    assert runs(Schedule(cron="0 * * * *", lag=timedelta(minutes=10)), done=at(3), now=at(4)) == [(at(3), at(4))]


def test_jitter_puts_the_start_off_alike_in_every_worker() -> None:
    schedule = Schedule(cron="0 * * * *", jitter=timedelta(minutes=10))
    delays = {jitter_of(schedule, "weather", at(hour)) for hour in range(24)}
    assert len(delays) == 24
    assert max(delays) < timedelta(minutes=10)
    delay = jitter_of(schedule, "weather", at(4))
    assert runs(schedule, done=at(3), now=at(4) + delay - timedelta(microseconds=1)) == []
    assert runs(schedule, done=at(3), now=at(4) + delay) == [(at(3), at(4))]


def test_waiting_doubles_up_to_an_hour() -> None:
    waits = [wait_after(failures).total_seconds() for failures in range(1, 10)]
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
