"""The point-in-time lookup in plain Python: slow, and obviously what `docs/` says a value means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NEVER = -(10**30)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A source row. Times are whole nanoseconds; a null known time is None."""

    keys: tuple[Any, ...]
    event: int | None
    known: int | None
    values: Mapping[str, Any]


def winner(
    rows: Sequence[Row],
    keys: tuple[Any, ...],
    *,
    at: int,
    cutoff: int,
    ttl: int = 0,
    has_known: bool = True,
    filter_known: bool = True,
) -> int | None:
    """The position of the row that wins for these keys asked at `at`, or None."""
    if any(key is None for key in keys):
        return None
    best: tuple[int, int, int] | None = None
    for position, row in enumerate(rows):
        if row.event is None or row.keys != keys or row.event > min(at, cutoff):
            continue
        if has_known and filter_known and row.known is not None and row.known > min(at, cutoff):
            continue
        if ttl and row.event < at - ttl:
            continue
        known = (NEVER if row.known is None else row.known) if has_known else row.event
        best = max(best or (row.event, known, position), (row.event, known, position))
    return None if best is None else best[2]
