"""Which intervals are landed already, and which are still to come. The file names are the record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from tidemill.definitions.catalog import Source
from tidemill.errors import InputError

_STAMP = "%Y%m%dT%H%M%S.%fZ"
_FILE = re.compile(r"(\d{8}T\d{6}(?:\.\d{6})?Z)_(\d{8}T\d{6}(?:\.\d{6})?Z)\.parquet")


@dataclass(frozen=True, order=True)
class Interval:
    """From `start` up to but without `end`, both UTC."""

    start: datetime
    end: datetime

    @property
    def file_name(self) -> str:
        return f"{_stamp(self.start)}_{_stamp(self.end)}.parquet"


def split(start: datetime, end: datetime, every: timedelta) -> Iterator[Interval]:
    """Cut `[start, end)` at whole multiples of `every` since 1970; the first and the last part may be shorter."""
    if every <= timedelta(0):
        raise InputError(f"An interval of {every} is no interval.", hint="Ask for e.g. every='1d'.")
    if end <= start:
        raise InputError(f"The interval ends ({end}) before it starts ({start}).")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    while start < end:
        following = epoch + ((start - epoch) // every + 1) * every
        yield Interval(start, min(following, end))
        start = following


def landed(folder: Path) -> list[Interval]:
    """The intervals whose files lie in a folder, ascending."""
    found = (interval_of(file.name) for file in folder.glob("*.parquet"))
    return sorted(interval for interval in found if interval is not None)


def interval_of(name: str) -> Interval | None:
    """The interval whose rows a file of this name holds, or None for any other file."""
    match = _FILE.fullmatch(name)
    return Interval(_moment(match[1]), _moment(match[2])) if match else None


def history_until(root: Path, source: Source) -> datetime | None:
    """Until when what became known of a source has landed; None where no interval of it ever did."""
    if "://" in source.path:
        return None
    return max((interval.end for interval in landed(root / source.path)), default=None)


def missing(wanted: Interval, there: Iterable[Interval]) -> Iterator[Interval]:
    """The parts of `wanted` that no interval of `there` (ascending) covers, so that no row can land twice."""
    start = wanted.start
    for interval in there:
        if interval.end <= start or interval.start >= wanted.end:
            continue
        if interval.start > start:
            yield Interval(start, interval.start)
        start = max(start, interval.end)
    if start < wanted.end:
        yield Interval(start, wanted.end)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_STAMP).replace(".000000Z", "Z")


@lru_cache(maxsize=1 << 16)  # a schedule reads the same file names at every tick
def _moment(text: str) -> datetime:
    return datetime.strptime(text, _STAMP if "." in text else "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
