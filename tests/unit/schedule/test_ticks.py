"""Ticks: APScheduler's triggers are the reference away from clock changes; the changes are spelled out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.clock import to_micros
from tidemill.definitions import Schedule
from tidemill.errors import DefinitionError, InputError
from tidemill.schedule.ticks import NEVER, check_schedule, newest_tick, newest_ticks, next_tick, ticks_between

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def instants(ticks: np.ndarray) -> list[str]:
    return [f"{tick:%m-%d %H:%M}" for tick in ticks.astype("datetime64[us]").tolist()]


def between(cron: str, timezone: str, start: str, end: str) -> list[str]:
    found = ticks_between(
        Schedule(cron=cron, timezone=timezone), datetime.fromisoformat(start), datetime.fromisoformat(end)
    )
    return instants(found)


def by_trigger(trigger: CronTrigger | IntervalTrigger, start: datetime, end: datetime) -> list[int]:
    found: list[int] = []
    tick = trigger.get_next_fire_time(None, start)
    while tick is not None and tick <= end:
        found.append(to_micros(tick))
        tick = trigger.get_next_fire_time(tick, tick)
    return found


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    kind = draw(st.sampled_from(["*", "step", "one", "list", "range"]))
    a, b = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    if kind == "*":
        return "*"
    if kind == "step":
        return f"*/{draw(st.integers(1, high - low))}"
    if kind == "one":
        return str(a)
    if kind == "list":
        return f"{a},{b}"
    return f"{a}-{b}"


@st.composite
def crons(draw: st.DrawFn) -> tuple[str, str, str, str, str]:
    minute, hour = draw(fields(0, 59)), draw(fields(0, 23))
    day, month = draw(fields(1, 28)), draw(fields(1, 12))
    weekday = draw(st.sampled_from(["*", "0", "7", "1-5", "mon", "sun,3", "5-7", "sat", "2,4,6"]))
    return minute, hour, day, month, weekday


@settings(max_examples=80)
@given(
    crons(),
    st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Asia/Kolkata"]),
)
def test_cron_ticks_are_those_of_apscheduler_where_clocks_do_not_change(
    cron: tuple[str, str, str, str, str], start: datetime, timezone: str
) -> None:
    minute, hour, day, month, weekday = cron
    end = start + timedelta(days=3)
    names = {
        "*": "*", "0": "sun", "7": "sun", "1-5": "mon-fri", "mon": "mon", "sun,3": "sun,wed", "5-7": "fri-sun",
        "sat": "sat", "2,4,6": "tue,thu,sat",
    }  # fmt: skip
    either = "*" not in (day[0], weekday[0])
    days = ((day, "*"), ("*", names[weekday])) if either else ((day, names[weekday]),)
    expected: set[int] = set()
    for d, w in days:
        trigger = CronTrigger(minute=minute, hour=hour, day=d, month=month, day_of_week=w, timezone=ZoneInfo(timezone))
        expected |= set(by_trigger(trigger, start, end))
    found = ticks_between(Schedule(cron=" ".join(cron), timezone=timezone), start, end)
    assert found.tolist() == sorted(expected)


@settings(max_examples=40)
@given(
    st.integers(1, 200_000).map(lambda seconds: timedelta(seconds=seconds)),
    st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_interval_ticks_are_those_of_apscheduler_from_1970(every: timedelta, start: datetime) -> None:
    start = start.replace(microsecond=0)
    end = start + 20 * every
    trigger = IntervalTrigger(
        seconds=int(every.total_seconds()), start_date=datetime(1970, 1, 1, tzinfo=UTC), timezone=UTC
    )
    assert ticks_between(Schedule(every=every), start, end).tolist() == by_trigger(trigger, start, end)


@settings(max_examples=40)
@given(
    st.sampled_from(["*/5 * * * *", "30 2 * * *", "0 6 * * 1", "0 0 1 * *", "0 0 29 2 *", "15 1,2 31 * *"]),
    st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]),
    st.integers(0, 90).map(lambda minutes: timedelta(minutes=minutes)),
    st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)), min_size=1, max_size=6),
)
def test_the_newest_tick_is_the_last_one_whose_lag_is_over(
    cron: str, timezone: str, lag: timedelta, moments: list[datetime]
) -> None:
    schedule = Schedule(cron=cron, timezone=timezone, lag=lag)
    found = newest_ticks(schedule, np.array([to_micros(m) for m in moments]))
    for moment, tick in zip(moments, found.tolist(), strict=True):
        reachable = ticks_between(schedule, moment - lag - timedelta(days=9 * 366), moment - lag)
        assert tick == reachable[-1]
        assert newest_tick(schedule, moment) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=tick)


def test_both_ends_of_the_interval_belong_to_it() -> None:
    assert between("0 * * * *", "UTC", "2013-01-01T00:00", "2013-01-01T02:00") == [
        "01-01 00:00",
        "01-01 01:00",
        "01-01 02:00",
    ]


def test_sunday_is_0_and_7_and_monday_is_1() -> None:
    assert between("0 0 * * 0", "UTC", "2024-06-01", "2024-06-07") == ["06-02 00:00"]
    assert between("0 0 * * 7", "UTC", "2024-06-01", "2024-06-07") == ["06-02 00:00"]
    assert between("0 0 * * 1", "UTC", "2024-06-01", "2024-06-07") == ["06-03 00:00"]


def test_a_restricted_day_of_month_or_a_restricted_weekday_is_enough() -> None:
    assert between("0 0 5 * mon", "UTC", "2024-06-01", "2024-06-11") == ["06-03 00:00", "06-05 00:00", "06-10 00:00"]


def test_a_daily_time_that_clocks_skip_fires_as_they_change() -> None:
    # New York, 10 March 2013: 02:00 EST becomes 03:00 EDT, at 07:00 UTC.
    found = between("30 2 * * *", "America/New_York", "2013-03-09T00:00", "2013-03-12T00:00")
    assert found == ["03-09 07:30", "03-10 07:00", "03-11 06:30"]


def test_a_daily_time_that_clocks_repeat_fires_once() -> None:
    # New York, 3 November 2013: 02:00 EDT becomes 01:00 EST, at 06:00 UTC.
    found = between("30 1 * * *", "America/New_York", "2013-11-02T00:00", "2013-11-05T00:00")
    assert found == ["11-02 05:30", "11-03 05:30", "11-04 06:30"]


def test_midnight_fires_on_the_day_that_has_none() -> None:
    # Sao Paulo, 15 October 2017: 00:00 became 01:00.
    found = between("0 0 * * *", "America/Sao_Paulo", "2017-10-14T00:00", "2017-10-17T00:00")
    assert found == ["10-14 03:00", "10-15 03:00", "10-16 02:00"]


@pytest.mark.parametrize("day", ["2013-03-10", "2013-11-03"])
def test_an_hourly_schedule_fires_every_hour_whatever_clocks_do(day: str) -> None:
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=UTC)
    ticks = ticks_between(Schedule(cron="5 * * * *", timezone="America/New_York"), start, start + timedelta(days=1))
    assert ticks.size == 24
    assert set(np.diff(ticks).tolist()) == {3_600_000_000}


def test_half_an_hour_of_daylight_saving_is_respected() -> None:
    # Lord Howe Island, 2 April 2023: 02:00 became 01:30, at 15:00 UTC.
    found = between("0,30 1 * * *", "Australia/Lord_Howe", "2023-04-01T12:00", "2023-04-02T12:00")
    assert found == ["04-01 14:00", "04-01 14:30"]


@pytest.mark.parametrize("day", ["2023-04-01", "2023-09-30"])
@pytest.mark.parametrize(("minute", "apart"), [(5, 90), (45, 30)])
def test_an_hourly_schedule_keeps_its_minute_where_clocks_change_by_half_an_hour(
    day: str, minute: int, apart: int
) -> None:
    # Lord Howe Island: 02:00 became 01:30 on 2 April 2023, and 02:30 on 1 October.
    start = datetime.fromisoformat(f"{day}T10:00").replace(tzinfo=UTC)
    ticks = ticks_between(
        Schedule(cron=f"{minute} * * * *", timezone="Australia/Lord_Howe"), start, start + timedelta(hours=12)
    )
    minutes = np.diff(ticks) // 60_000_000
    assert sorted(set(minutes.tolist())) == sorted({60, apart})
    assert (minutes == apart).sum() == 1


def test_an_instant_before_any_tick_has_none() -> None:
    assert newest_ticks(Schedule(every=timedelta(hours=1)), np.array([NEVER])).tolist() == [NEVER]
    assert (
        newest_ticks(Schedule(cron="0 * * * *"), np.array([NEVER, to_micros(datetime(1800, 1, 1))])).tolist()
        == [NEVER] * 2
    )
    assert newest_ticks(Schedule(cron="0 * * * *"), np.array([], dtype=np.int64)).tolist() == []


def test_an_interval_before_1970_counts_backwards_from_it() -> None:
    schedule = Schedule(every=timedelta(hours=1))
    assert newest_ticks(schedule, np.array([-1])).tolist() == [-3_600_000_000]


def test_the_next_tick_is_later_than_the_moment_asked() -> None:
    leap = Schedule(cron="0 0 29 2 *")
    assert next_tick(leap, datetime(2096, 2, 29, tzinfo=UTC)) == datetime(2104, 2, 29, tzinfo=UTC)
    quarters = Schedule(every=timedelta(minutes=15))
    assert next_tick(quarters, datetime(2024, 1, 1, 0, 15, tzinfo=UTC)) == datetime(2024, 1, 1, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (Schedule(cron="61 * * * *"), "does not parse"),
        (Schedule(cron="* * *"), "3 fields"),
        (Schedule(cron="a b c d e"), "does not parse"),
        (Schedule(cron="*/0 * * * *"), "does not parse"),
        (Schedule(cron="0 0 * * 8"), "day of the week"),
        (Schedule(cron="0 0 * * mo"), "day of the week"),
        (Schedule(cron=""), "0 fields"),
        (Schedule(cron="0 0 30 2 *"), "never fires"),
        (Schedule(cron="0 0 31 4,6 *"), "never fires"),
        (Schedule(cron="0 0 * * *", timezone="Mars/Olympus"), "no time zone named"),
        (Schedule(every=timedelta(0)), "longer than nothing"),
        (Schedule(), "either a cron expression or a fixed interval"),
        (Schedule(cron="0 0 * * *", every=timedelta(hours=1)), "not both"),
        (Schedule(cron="0 0 * * *", lag=timedelta(seconds=-1)), "lag"),
        (Schedule(cron="0 0 * * *", timeout=timedelta(0)), "longer than a timeout"),
        (Schedule(every=timedelta(hours=1), timezone="Europe/Berlin"), "changes nothing"),
    ],
)
def test_a_schedule_that_cannot_be_kept_says_why(schedule: Schedule, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        check_schedule(schedule)
    with pytest.raises(DefinitionError, match=said):
        ticks_between(schedule, datetime(2024, 1, 1), datetime(2024, 1, 2))


def test_an_interval_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InputError, match="before it starts"):
        ticks_between(Schedule(every=timedelta(hours=1)), datetime(2024, 1, 2), datetime(2024, 1, 1))


def test_common_nicknames_are_understood() -> None:
    assert between("@daily", "UTC", "2024-06-01", "2024-06-02") == ["06-01 00:00", "06-02 00:00"]
