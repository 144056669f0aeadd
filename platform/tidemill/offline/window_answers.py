"""A windowed view's answers to rows of keys and instants: over its whole source at once, or key by key where memory is
short.

With little room the keys are shared out, and the source is gone through once for each share, some row groups at a time,
of which only the events of the share's keys are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tidemill.offline.instants import FOREVER, Instants, Unit, finer, rescale
from tidemill.offline.keys import as_declared
from tidemill.offline.window_events import PIECE_ROWS, Events
from tidemill.offline.windows import span_of, window_values

_EVENT_BYTES = 130
"""What an event costs while windows are computed: as read, its code, rank and times, and one column's sums."""
_COLUMN_BYTES = 16
"""What each further column of an event costs."""
_READ_BYTES = 100
"""What an event costs while it is read and matched with the keys, some row groups at a time."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Rows of keys as they were declared, up to when windows reach, and what had been learned by then."""

    keys: pl.DataFrame
    upto: Instants
    known: Instants
    unit: Unit
    refuse: bool

    def take(self, rows: np.ndarray) -> Asked:
        return replace(self, keys=self.keys[rows], upto=self.upto[rows], known=self.known[rows])


def answer_windows(
    events: Events,
    keys: pl.DataFrame,
    upto: Instants,
    unit: Unit,
    *,
    features: Sequence[str],
    filter_known: bool = True,
    known: Instants | None = None,
    room: int | None = None,
    refuse: bool = True,
) -> pl.DataFrame:
    """The features of each row of keys, and `__event_time`. Instants are in `unit`.

    Args:
        events: the view's source.
        keys: the view's join keys.
        upto: the windows' leading edges.
        features: which, in this order.
        filter_known: leave out what was not known by `known`.
        known: what had been learned by then counts; `upto` unless given.
        room: how many bytes the events may take; all are held at once without.
        refuse: see `window_values`.

    Raises KeyTypeError where a key is of another type than declared, SourceError where a file is damaged.
    """
    exact = finer([unit, events.unit])
    upto = rescale(upto, unit, exact)
    learned = upto if known is None else rescale(known, unit, exact)
    asked = Asked(
        keys=as_declared(keys, events.key_types),
        upto=upto,
        known=learned if filter_known else np.full(len(upto), FOREVER, np.int64),
        unit=exact,
        refuse=refuse,
    )
    between = span_of(events.view, upto, exact)
    shares = _shares(events, between, asked, room)
    with events.naming_damage():
        if shares == 1:
            return _answer(events, [events.scan(exact, between)], asked, features)
        return _answer_by_share(events, between, asked, features, shares)


def _shares(events: Events, between: tuple[int, int], asked: Asked, room: int | None) -> int:
    """Into how many shares the keys have to be divided for the events of one to fit."""
    if room is None or not asked.keys.width or not asked.keys.height:
        return 1
    columns = len(events.value_columns)
    left = max(room - PIECE_ROWS * (_READ_BYTES + _COLUMN_BYTES * columns), room // 4, 1)
    needed = events.rows_between(between, asked.unit) * (_EVENT_BYTES + _COLUMN_BYTES * columns)
    return max(-(-needed // left), 1)


def _answer(events: Events, scanned: Sequence[pl.LazyFrame], asked: Asked, features: Sequence[str]) -> pl.DataFrame:
    return window_values(
        events.view,
        scanned,
        asked.keys,
        asked.upto,
        asked.known,
        features=features,
        with_event_time=True,
        unit=asked.unit,
        refuse=asked.refuse,
        **events.times,
    )


def _answer_by_share(
    events: Events, between: tuple[int, int], asked: Asked, features: Sequence[str], shares: int
) -> pl.DataFrame:
    share_of = (asked.keys.hash_rows(seed=0) % shares).to_numpy()
    found: list[pl.DataFrame] = []
    order: list[np.ndarray] = []
    for share in range(shares):
        rows = np.flatnonzero(share_of == share)
        if len(rows):
            found.append(_answer(events, events.scan_in_pieces(asked.unit, between), asked.take(rows), features))
            order.append(rows)
    place = np.empty(len(asked.upto), np.uint32)
    place[np.concatenate(order)] = np.arange(len(asked.upto), dtype=np.uint32)
    return pl.concat(found)[place]
