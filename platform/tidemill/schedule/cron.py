"""Cron expressions of five fields, as sets of days and of minutes of the day.

APScheduler reads the fields; three things follow the standard where its triggers do not. Days of the week are numbered
from Sunday (0 or 7). Where both the day of the month and the day of the week are restricted, either is enough. And when
clocks change, a schedule at fixed hours fires once for each time it names (see `tidemill.schedule.ticks`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import numpy as np
from apscheduler.triggers.cron import CronTrigger

from tidemill.errors import DefinitionError

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WEEKDAY_PART = re.compile(r"^(?P<first>\*|\d|[a-z]{3})(?:-(?P<last>\d|[a-z]{3}))?(?:/(?P<step>\d+))?$")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FORM = 'Write five fields, "minute hour day-of-month month day-of-week", such as "5 * * * *" or "30 6 * * mon-fri".'
_EIGHT_YEARS = (date(2000, 1, 1), date(2008, 1, 1))  # holds every day of the year, 29 February included


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A parsed expression: which days match, and the minutes of a matching day, ascending.

    `follows_clock` is true where the hour field begins with `*`: such a schedule is about elapsed time, so a repeated
    hour is worked through twice and a skipped one not at all.
    """

    text: str
    minutes: tuple[int, ...]
    follows_clock: bool
    day_rules: tuple[CronTrigger, ...]

    def matches(self, day: date) -> bool:
        return any(_matches(rule, day) for rule in self.day_rules)

    def days(self, first: date, last: date) -> np.ndarray:
        """Matching days in [first, last] as days since 1970-01-01, int64."""
        found = [
            number - _EPOCH_DAY
            for number in range(first.toordinal(), last.toordinal() + 1)
            if self.matches(date.fromordinal(number))
        ]
        return np.array(found, dtype=np.int64)


@lru_cache(maxsize=512)
def parse_cron(text: str) -> Cron:
    """Read a cron expression. Raises DefinitionError where it does not parse or no day ever matches."""
    parts = _NICKNAMES.get(text.strip().lower(), text.strip().lower()).split()
    if len(parts) != 5:
        raise DefinitionError(f"The schedule {text!r} has {len(parts)} fields, not 5.", hint=_FORM)
    minute, hour, day, month, weekday = parts
    try:
        weekday = _weekdays(weekday)
        either = "*" not in (day[0], parts[4][0])
        days = ((day, "*"), ("*", weekday)) if either else ((day, weekday),)
        rules = tuple(CronTrigger(month=month, day=d, day_of_week=w, hour=0, timezone=UTC) for d, w in days)
        clock = CronTrigger(hour=hour, minute=minute, timezone=UTC)
    except (ValueError, TypeError) as error:
        raise DefinitionError(f"The schedule {text!r} does not parse: {error}.", hint=_FORM) from None
    cron = Cron(text=text, minutes=_minutes(clock), follows_clock=hour.startswith("*"), day_rules=rules)
    if not cron.days(*_EIGHT_YEARS).size:
        raise DefinitionError(
            f"The schedule {text!r} never fires: no month it names has such a day.",
            hint="Correct the day or the month.",
        )
    return cron


def _matches(rule: CronTrigger, day: date) -> bool:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return all(
        field.get_next_value(moment) == field.get_value(moment)
        for field in rule.fields
        if field.name in {"month", "day", "day_of_week"}
    )


def _minutes(clock: CronTrigger) -> tuple[int, ...]:
    """Minutes of the day at which the hour and minute fields match."""
    fields = {field.name: field for field in clock.fields}
    midnight = datetime(2000, 1, 1, tzinfo=UTC)
    hours = _values(fields["hour"], [midnight + timedelta(hours=n) for n in range(24)])
    minutes = _values(fields["minute"], [midnight + timedelta(minutes=n) for n in range(60)])
    return tuple(60 * hour + minute for hour in hours for minute in minutes)


def _values(field, moments: list[datetime]) -> list[int]:
    return [value for m in moments if field.get_next_value(m) == (value := field.get_value(m))]


def _weekdays(text: str) -> str:
    """The day-of-week field with standard numbers, in APScheduler's, whose Monday is 0."""
    if text == "*":
        return "*"
    days = {day for part in text.split(",") for day in _weekday_range(part)}
    return ",".join(str((day - 1) % 7) for day in sorted(days))


def _weekday_range(part: str) -> list[int]:
    found = _WEEKDAY_PART.match(part)
    if found is None:
        raise ValueError(f"{part!r} is not a day of the week; use 0 to 7 or sun to sat")
    first, last, step = found["first"], found["last"], int(found["step"] or 1)
    if step == 0 or (first == "*" and last is not None):
        raise ValueError(f"{part!r} is not a range of days of the week")
    begin = 0 if first == "*" else _weekday(first)
    end = _weekday(last) if last else (6 if first == "*" or found["step"] else begin)
    return [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8, step)]


def _weekday(text: str) -> int:
    if text in _WEEKDAYS:
        return _WEEKDAYS.index(text)
    if text.isdigit() and int(text) <= 7:
        return int(text)
    raise ValueError(f"{text!r} is not a day of the week; use 0 to 7 or sun to sat")
