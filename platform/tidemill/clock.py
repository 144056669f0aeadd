"""Where `now` comes from. Only entry points choose a clock; everything below takes an instant as an argument.

A project usually lives on the wall clock. A replay of history lives on a simulated one, kept in a small file of the
project's state folder, so that every process of the project (API, scheduler, Feast SDK) agrees on what time it is.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, time_ns
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = 50_000_000  # nanoseconds, several times what Linux takes


class Clock(Protocol):
    """Tells the present instant, in UTC with a time zone."""

    def now(self) -> datetime: ...


class ManualClock:
    """A clock that stands still until it is set; for tests and replays within one process."""

    def __init__(self, at: datetime) -> None:
        self._at = as_utc(at)

    def now(self) -> datetime:
        return self._at

    def set(self, at: datetime) -> None:
        self._at = as_utc(at)


class SimulatedClock:
    """A clock shared by the processes of a project through a file, which is replaced atomically.

    Where the file does not exist, the wall clock is told. Asking costs one `stat`, a microsecond or two; the file is
    read again only when it was replaced, so that all processes see a new time at once.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._at: datetime | None = None

    def now(self) -> datetime:
        self._refresh()
        return self._at or datetime.now(UTC)

    @property
    def simulated(self) -> bool:
        self._refresh()
        return self._at is not None

    def set(self, at: datetime) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps({"now": as_utc(at).isoformat()}))
        fresh.replace(self._file)

    def release(self) -> None:
        """Go back to the wall clock."""
        self._file.unlink(missing_ok=True)

    def _refresh(self) -> None:
        try:
            stat = os.stat(self._file)  # noqa: PTH116 - half the cost of Path.stat, and on the hot path
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp != self._stamp:
                self._at = as_utc(datetime.fromisoformat(json.loads(self._file.read_text())["now"]))
                self._stamp = stamp if is_settled(stat) else None
        except FileNotFoundError:
            self._at, self._stamp = None, None


def is_simulated(clock: Clock) -> bool:
    """Whether a shared clock was set to another time than the present; one of a single process never says so."""
    return bool(getattr(clock, "simulated", False))


def ended(clock: Clock, at: datetime, began: float) -> datetime:
    """When work ends that began at `at`: as much later as `time.monotonic()` has come since `began`, unless the clock
    stands still."""
    return max(at, min(clock.now(), at + timedelta(seconds=monotonic() - began)))


def is_settled(stat: os.stat_result) -> bool:
    """Whether a file is told by its time from whatever is written in its place from now on.

    File systems take the time from a clock that ticks every few milliseconds: what is written twice within a tick has
    the same time, and often the same size and number too.
    """
    return time_ns() - stat.st_mtime_ns > _TICK


def as_utc(at: datetime) -> datetime:
    """The same instant in UTC; a naive one is read as UTC, whatever the process's zone."""
    if at.tzinfo is UTC:
        return at
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exact."""
    delta = as_utc(at) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
