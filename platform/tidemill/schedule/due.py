"""What is due at an instant. Pure: the same schedule, progress and instant give the same answer in every worker."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tidemill.clock import as_utc
from tidemill.definitions.catalog import CatchUp, Schedule
from tidemill.schedule.ticks import newest_tick, ticks_between

GRACE = timedelta(minutes=1)
"""How long after its tick a run that skips missed ticks may still start; the schedule's lag, where that is longer."""

FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Due:
    """A run up to `tick`, of everything after `start`."""

    start: datetime
    tick: datetime


def due_runs(
    schedule: Schedule, *, name: str, done: datetime | None, at: datetime, begun: datetime | None = None
) -> list[Due]:
    """The runs to make at an instant, in order. `done` is the tick that was last brought to its end, if any.

    What was missed is treated as the schedule says (`CatchUp`); the tick of a run that was `begun`, and has not
    succeeded, was not missed. A task that never ran starts with its newest tick.
    """
    at = as_utc(at)
    ticks = _ticks_since(schedule, done, at)
    ready = [tick for tick in ticks if tick + jitter_of(schedule, name, tick) <= at]
    if not ready:
        return []
    begin = done if done is not None else tick_before(schedule, ready[0])
    if schedule.catch_up is CatchUp.ALL:
        starts = [begin, *ready[:-1]]
        return [Due(start=start, tick=tick) for start, tick in zip(starts, ready, strict=True)]
    if ready[-1] != begun and _is_skipped(schedule, ready[-1], at):
        return []
    return [Due(start=begin, tick=ready[-1])]


def is_owed(schedule: Schedule, *, done: datetime | None, at: datetime, begun: datetime | None = None) -> bool:
    """Whether a tick has passed whose run is still to come, be it that its jitter holds it back: what builds on it
    waits."""
    at = as_utc(at)
    ticks = _ticks_since(schedule, done, at)
    return bool(ticks) and (ticks[-1] == begun or not _is_skipped(schedule, ticks[-1], at))


def jitter_of(schedule: Schedule, name: str, tick: datetime) -> timedelta:
    """How long after its tick this run starts: as if by chance, yet the same in every worker."""
    room = schedule.jitter // _MICROSECOND
    if not room:
        return timedelta(0)
    digest = hashlib.sha256(f"{name} {tick.isoformat()}".encode()).digest()
    return timedelta(microseconds=int.from_bytes(digest[:8]) % room)


def tick_before(schedule: Schedule, tick: datetime) -> datetime:
    """The tick before this one, the lag aside; the tick itself where it is the first."""
    return newest_tick(replace(schedule, lag=timedelta(0)), tick - _MICROSECOND) or tick


def wait_after(failures: int) -> timedelta:
    """How long to wait after so many failures in a row: 30 s, doubled each time, an hour at most."""
    doubled = FIRST_WAIT * 2 ** min(max(failures - 1, 0), 16)
    return min(doubled, LONGEST_WAIT)


def _is_skipped(schedule: Schedule, tick: datetime, at: datetime) -> bool:
    late = at - tick > max(GRACE, schedule.lag) + schedule.jitter
    return schedule.catch_up is CatchUp.SKIP and late


def _ticks_since(schedule: Schedule, done: datetime | None, at: datetime) -> list[datetime]:
    if done is None:
        newest = newest_tick(replace(schedule, lag=timedelta(0)), at)
        return [] if newest is None else [newest]
    if done >= at:
        return []
    found = ticks_between(schedule, done + _MICROSECOND, at)
    return [_EPOCH + timedelta(microseconds=int(tick)) for tick in found]
