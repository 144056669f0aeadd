"""Cutting a run's interval into pieces that fit a memory limit.

A piece is an interval like any other: its rows are those that happened or became known in it. Done one after the other
the pieces leave exactly what the whole would have left.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import View
from tidemill.errors import ConfigurationError

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40, "k": 2**10, "m": 2**20, "g": 2**30, "b": 1}
_COPIES = 6  # times a row's size: read, sorted, gathered, encoded, and the slack of allocators
_BASE = 200 * 2**20  # what the process takes before the first row


def chunk_ends(
    offline: OfflineStore, view: View, start: datetime | None, end: datetime, *, limit: str | None
) -> Iterator[datetime]:
    """The ends of the pieces of `(start, end]`, in order; the last is `end`. Without a limit there is one piece."""
    if limit is None or view.is_windowed:
        yield end
        return
    most = max(1, (parse_size(limit) - _BASE) // (_COPIES * _row_bytes(view)))
    yield from _cut(offline, view, start, end, int(most))


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


def _cut(offline: OfflineStore, view: View, start: datetime | None, end: datetime, most: int) -> Iterator[datetime]:
    """Ends such that each piece holds about `most` rows of the source, as far as event times can tell them apart."""
    source = offline.catalog.source(view.source)
    known = source.known_field or source.timestamp_field
    touched = pl.max_horizontal(pl.col(source.timestamp_field), pl.col(known).fill_null(pl.col(source.timestamp_field)))
    minutes = (
        offline.scan(view.source)
        .select(touched.alias("at"))
        .filter(_after(start, pl.col("at")) & (pl.col("at") <= end))
        .group_by(pl.col("at").dt.truncate("1m"))
        .len()
        .sort("at")
        .collect()
    )
    total = 0
    for at, count in minutes.iter_rows():
        if total and total + count > most and at > (start or datetime.min.replace(tzinfo=UTC)):
            yield _EPOCH + timedelta(microseconds=to_micros(at) - 1)
            total = 0
        total += count
    yield end


def _after(start: datetime | None, column: pl.Expr) -> pl.Expr:
    return pl.lit(True) if start is None else column > start
