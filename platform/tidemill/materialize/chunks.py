"""Cutting a run's interval into pieces that fit a memory limit.

A piece is an interval like any other: its rows are those that happened or became known in it. Done one after the other
the pieces leave exactly what the whole would have left. Where too many rows share one instant for time to tell them
apart, a piece is done in shares of its keys; so is a windowed view, each of whose values needs events of many instants.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import View
from tidemill.errors import ConfigurationError

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40, "k": 2**10, "m": 2**20, "g": 2**30, "b": 1}
_COPIES = 6  # times a row's size: read, sorted, gathered, encoded, and the slack of allocators
_BASE = 200 * 2**20  # what the process takes before the first row


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece up to `end`, done in `shares` parts of its keys."""

    end: datetime
    shares: int = 1


def chunks_of(
    offline: OfflineStore, view: View, start: datetime | None, end: datetime, *, limit: str | None
) -> Iterator[Chunk]:
    """The pieces of `(start, end]`, in order; the last ends at `end`. Without a limit there is one piece."""
    if limit is None:
        yield Chunk(end=end)
        return
    most = _most_rows(view, limit)
    if view.is_windowed:
        events = offline.events_of_run(view.name, start=start, end=end) if view.join_keys else 0
        yield Chunk(end=end, shares=max(1, -(-events // most)))
        return
    yield from _cut(_rows_by_minute(offline, view, start, end), end, most)


def chunks_of_each(
    offline: OfflineStore, view: View, start: datetime, ends: Sequence[datetime], *, limit: str | None, parallel: int
) -> list[list[Chunk]]:
    """The chunks of each of adjoining intervals, the first of which begins after `start`. All of those that are at work
    at the same time, `parallel` of them, fit the limit together."""
    if limit is None:
        return [[Chunk(end=end)] for end in ends]
    most = max(1, _most_rows(view, limit) // parallel)
    minutes = _rows_by_minute(offline, view, start, ends[-1])
    begins = [at for at, _ in minutes]
    chunks = []
    for begin, end in pairwise([start, *ends]):
        first, last = bisect_right(begins, begin - _MINUTE), bisect_right(begins, end)
        chunks.append(list(_cut(minutes[first:last], end, most)))
    return chunks


def _most_rows(view: View, limit: str) -> int:
    return max(1, (parse_size(limit) - _BASE) // (_COPIES * _row_bytes(view)))


def parse_size(text: str) -> int:
    """`500mb`, `2gb`: a number and a unit. Raises ConfigurationError."""
    compact = text.strip().lower()
    for unit, factor in _UNITS.items():
        if compact.endswith(unit):
            number = compact.removesuffix(unit).strip()
            try:
                return int(float(number) * factor)
            except ValueError:
                break
    raise ConfigurationError(f"{text!r} is not a size.", hint="Write a number and a unit, such as 500mb or 2gb.")


def _row_bytes(view: View) -> int:
    return 16 + 16 * (len(view.join_keys) + len(view.features) + 2)


def _cut(minutes: Sequence[tuple[datetime, int]], end: datetime, most: int) -> Iterator[Chunk]:
    """Pieces of at most about `most` rows of the source: of its minutes as many as fit, of a fuller minute shares."""
    begin, total = None, 0
    for at, count in minutes:
        if total and total + count > most and (begin is None or at > begin):
            yield Chunk(end=_EPOCH + timedelta(microseconds=to_micros(at) - 1), shares=-(-total // most))
            begin, total = at, 0
        total += count
    yield Chunk(end=end, shares=max(1, -(-total // most)))


def _rows_by_minute(
    offline: OfflineStore, view: View, start: datetime | None, end: datetime
) -> list[tuple[datetime, int]]:
    """How many rows happened or became known in each minute."""
    source = offline.catalog.source(view.source)
    event = pl.col(source.timestamp_field)
    known = event if source.known_field is None else pl.col(source.known_field).fill_null(event)
    touched = offline.scan(view.source).select(pl.max_horizontal(event, known).alias("at"))
    inside = pl.col("at") <= end if start is None else (pl.col("at") > start) & (pl.col("at") <= end)
    minutes = touched.filter(inside).group_by(pl.col("at").dt.truncate("1m")).len().sort("at")
    return minutes.collect(engine="streaming").rows()
