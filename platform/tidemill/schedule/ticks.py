"""When scheduled work is due.

Ticks are whole years of calendar arithmetic, made once and kept, because a training set asks for the newest tick of a
million instants. When clocks change, a schedule at fixed hours fires once for each time it names: a time that is
skipped fires as the clocks change, a time that is repeated fires the first time. A schedule whose hour field begins
with `*` follows elapsed time instead: an hourly one fires every hour, but for a change of half an hour (Lord Howe
Island), when its minute of the clock comes 30 or 90 minutes after the last. A fixed interval counts from 1970-01-01
UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from tidemill.borders import count_at_most
from tidemill.clock import as_utc, to_micros
from tidemill.definitions.catalog import Schedule
from tidemill.errors import DefinitionError, InputError
from tidemill.schedule.cron import Cron, parse_cron

NEVER = int(np.iinfo(np.int64).min)
"""Stands for `no tick yet` in arrays of instants."""

_MICROSECOND = timedelta(microseconds=1)
_MINUTE, _DAY = 60_000_000, 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR, _LAST_YEAR = 1902, 2400  # cron ticks are only looked for here
_ANCIENT = -(2**62)  # earlier instants stand for `never`
_FEW_YEARS = 20  # so many are not worth asking which of them occur
_LEAP_GAP = 8  # years that may lie between two 29ths of February
_SAMPLE = timedelta(hours=6)  # finer than any two changes of a zone's offset


def check_schedule(schedule: Schedule) -> None:
    """Raise DefinitionError where a schedule cannot be kept: not one of cron or interval, unknown zone, never fires."""
    if (schedule.cron is None) == (schedule.every is None):
        raise DefinitionError(
            "A schedule needs either a cron expression or a fixed interval, and not both.",
            hint='Write tags(schedule="5 * * * *") or tags(every="15m").',
        )
    if schedule.every is not None and schedule.every <= timedelta(0):
        raise DefinitionError(f"A schedule's interval must be longer than nothing; found {schedule.every}.")
    if schedule.lag < timedelta(0):
        raise DefinitionError(f"A schedule's lag cannot be negative; found {schedule.lag}.")
    if schedule.jitter < timedelta(0) or schedule.attempts < 1:
        raise DefinitionError("A schedule needs a jitter of 0 or more, and at least one attempt.")
    if schedule.timeout is not None and schedule.timeout <= timedelta(0):
        raise DefinitionError(f"Every run takes longer than a timeout of {schedule.timeout}.", hint="Give it more.")
    if schedule.every is not None and schedule.timezone != "UTC":
        raise DefinitionError(
            f"A fixed interval counts from 1970-01-01 UTC; timezone={schedule.timezone!r} changes nothing.",
            hint="Drop the time zone, or write a cron expression.",
        )
    _zone(schedule.timezone)
    if schedule.cron is not None:
        parse_cron(schedule.cron)


def ticks_between(schedule: Schedule, start: datetime, end: datetime) -> np.ndarray:
    """Every tick in [start, end], ascending, int64 microseconds since 1970 UTC. The lag plays no part.

    Raises InputError where the interval ends before it starts, DefinitionError for a schedule that cannot be kept.
    """
    first, last = to_micros(start), to_micros(end)
    if last < first:
        raise InputError(f"The interval ends ({as_utc(end)}) before it starts ({as_utc(start)}).")
    check_schedule(schedule)
    if schedule.every is not None:
        every = schedule.every // _MICROSECOND
        return np.arange(-(-first // every), last // every + 1, dtype=np.int64) * every
    ticks = _of_years(schedule, range(as_utc(start).year, as_utc(end).year + 1))
    return ticks[np.searchsorted(ticks, first) : np.searchsorted(ticks, last, side="right")]


def newest_ticks(schedule: Schedule, at: np.ndarray) -> np.ndarray:
    """For each instant the newest tick with `tick + lag <= at`, or NEVER. All are int64 microseconds since 1970 UTC."""
    check_schedule(schedule)
    at = np.asarray(at, dtype=np.int64)
    lag = schedule.lag // _MICROSECOND
    known = at >= _ANCIENT
    ancient = not known.all()
    moment = (np.where(known, at, 0) if ancient else at) - lag
    if schedule.every is not None:
        every = schedule.every // _MICROSECOND
        found = moment // every * every
    else:
        ticks = _of_years(schedule, _years_needed(schedule, moment))
        padded = np.concatenate([np.array([NEVER], dtype=np.int64), ticks])
        found = padded[count_at_most(ticks, moment)]
    return np.where(known, found, NEVER) if ancient else found


def newest_tick(schedule: Schedule, at: datetime) -> datetime | None:
    """The newest tick with `tick + lag <= at`, or None."""
    return _instant(newest_ticks(schedule, np.array([to_micros(at)], dtype=np.int64))[0])


def next_tick(schedule: Schedule, after: datetime) -> datetime | None:
    """The first tick later than `after`, the lag aside; None where the calendar ends first."""
    check_schedule(schedule)
    moment = to_micros(after)
    if schedule.every is not None:
        every = schedule.every // _MICROSECOND
        return _instant((moment // every + 1) * every)
    year = as_utc(after).year
    for ahead in range(year, year + _LEAP_GAP + 2):
        ticks = _of_years(schedule, [ahead])
        place = int(np.searchsorted(ticks, moment, side="right"))
        if place < ticks.size:
            return _instant(ticks[place])
    return None


def _instant(micros: int | np.int64) -> datetime | None:
    return None if micros == NEVER else _EPOCH + timedelta(microseconds=int(micros))


def _years_needed(schedule: Schedule, moments: np.ndarray) -> set[int]:
    """The years the instants lie in, and before each the nearest year that has a tick at all."""
    if not len(moments):
        return set()
    first, last = (
        int(edge.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64)) + 1970
        for edge in (moments.min(), moments.max())
    )
    if last - first <= _FEW_YEARS:
        years = set(range(first, last + 1))
    else:
        found = np.unique(moments.astype("datetime64[us]").astype("datetime64[Y]")).astype(np.int64) + 1970
        years = set(found.tolist())
    needed = set(years)
    for year in years:
        for earlier in range(year - 1, year - _LEAP_GAP - 2, -1):
            needed.add(earlier)
            if _of_years(schedule, [earlier]).size:
                break
    return needed


def _of_years(schedule: Schedule, years: set[int] | range | list[int]) -> np.ndarray:
    found = [
        _year_of_ticks(schedule.cron or "", schedule.timezone, year)
        for year in sorted(years)
        if _FIRST_YEAR <= year <= _LAST_YEAR
    ]
    return np.concatenate(found) if found else np.array([], dtype=np.int64)


@lru_cache(maxsize=2048)
def _year_of_ticks(text: str, timezone: str, year: int) -> np.ndarray:
    """All ticks within one year of UTC, ascending."""
    cron, zone = parse_cron(text), _zone(timezone)
    wall = _wall_times(cron, year)
    start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    parts: list[np.ndarray] = []
    # One day early, so that a change of clocks just before the year is seen by what follows it.
    segments = _segments(zone, start - timedelta(days=1), end)
    for place, (begin, finish, offset) in enumerate(segments):
        low, high = begin + offset, finish + offset
        if place and not cron.follows_clock:
            ended = begin + segments[place - 1][2]  # what the clocks on the wall showed when they were changed
            if _within(wall, ended, low).size:
                parts.append(np.array([begin], dtype=np.int64))
            low = max(low, ended)
        parts.append(_within(wall, low, high) - offset)
    ticks = np.unique(np.concatenate(parts))
    ticks = _within(ticks, to_micros(start), to_micros(end))
    ticks.flags.writeable = False
    return ticks


def _wall_times(cron: Cron, year: int) -> np.ndarray:
    """Matching clock times around a year, in microseconds as if the wall showed UTC."""
    days = cron.days(date(year - 1, 12, 29), date(year + 1, 1, 3))
    return (days[:, None] * _DAY + np.array(cron.minutes, dtype=np.int64)[None, :] * _MINUTE).ravel()


def _within(ascending: np.ndarray, low: int, high: int) -> np.ndarray:
    """What lies in [low, high)."""
    return ascending[np.searchsorted(ascending, low) : np.searchsorted(ascending, high)]


def _segments(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[int, int, int]]:
    """Stretches of [start, end) with one offset from UTC each: (begin, end, offset), in microseconds."""
    segments: list[tuple[int, int, int]] = []
    begin, moment = start, start
    while moment < end:
        ahead = min(moment + _SAMPLE, end)
        if _offset(zone, moment) != _offset(zone, ahead):
            change = _change_between(zone, moment, ahead)
            segments.append((to_micros(begin), to_micros(change), _offset(zone, moment)))
            begin = change
        moment = ahead
    if begin < end:
        segments.append((to_micros(begin), to_micros(end), _offset(zone, begin)))
    return segments


def _change_between(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first second at which the offset is that of `high`."""
    after = _offset(zone, high)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        low, high = (low, middle) if _offset(zone, middle) == after else (middle, high)
    return high


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    return (moment.astimezone(zone).utcoffset() or timedelta(0)) // _MICROSECOND


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DefinitionError(
            f"There is no time zone named {name!r}.", hint="Use a name such as UTC, Europe/Berlin or America/New_York."
        ) from None
