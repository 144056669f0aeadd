"""From events to records of tiles, vectorised: the same for a pushed batch and for a rebuild from history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tidemill.definitions.distinct import REGISTERS, registers_of
from tidemill.definitions.measures import measures
from tidemill.definitions.partials import LOW, WIDE, joined
from tidemill.definitions.windows import ColumnNeeds
from tidemill.online.tile_layout import GREATEST, LEAST, NEWEST, SINCE, TILE, ColumnWords, TileLayout

_FEW_EVENTS = 10_000


class AggregatedColumn:
    """A column's values as arrays, made once for all layouts and views that read it: a push is mostly a few events."""

    def __init__(self, series: pl.Series) -> None:
        self._series = series
        self.there = series.is_not_null().to_numpy() if series.null_count() else None
        self._numbers: dict[bool, np.ndarray] = {}

    def numbers(self, needs: ColumnNeeds) -> np.ndarray:
        """Int64 or float64 as `needs` asks, with anything where there is no value. Raises what `measures` raises."""
        if needs.whole not in self._numbers:
            self._numbers[needs.whole] = self._measured(needs)
        return self._numbers[needs.whole]

    def gather(self, rows: np.ndarray) -> pl.Series:
        return self._series.gather(rows)

    def take(self, rows: np.ndarray) -> AggregatedColumn:
        return _SomeRows(self, rows)

    def _measured(self, needs: ColumnNeeds) -> np.ndarray:
        if self.there is None:
            return measures(self._series, needs)
        given = measures(self._series.drop_nulls(), needs)
        numbers = np.zeros(len(self._series), dtype=given.dtype)
        numbers[self.there] = given
        return numbers


class _SomeRows(AggregatedColumn):
    """Some rows of a column; what is measured is measured once for all of them."""

    def __init__(self, column: AggregatedColumn, rows: np.ndarray) -> None:
        self._column, self._rows = column, rows
        self.there = None if column.there is None else column.there[rows]
        self._numbers = {}

    def gather(self, rows: np.ndarray) -> pl.Series:
        return self._column.gather(self._rows[rows])

    def _measured(self, needs: ColumnNeeds) -> np.ndarray:
        return self._column.numbers(needs)[self._rows]


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events in any order: the code of each one's entity, its tile, its times, the aggregated columns.

    `since` is 0 for an event whose time has come, else the instant from which on it counts.
    """

    code: np.ndarray
    tile: np.ndarray
    event: np.ndarray
    known: np.ndarray
    since: np.ndarray
    columns: Mapping[str, AggregatedColumn]

    def __len__(self) -> int:
        return len(self.code)

    def take(self, kept: np.ndarray) -> Events:
        """Some of the events."""
        return Events(
            code=self.code[kept],
            tile=self.tile[kept],
            event=self.event[kept],
            known=self.known[kept],
            since=self.since[kept],
            columns={name: column.take(kept) for name, column in self.columns.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records sorted by (code, tile, since): `words` is (n, layout.words) int64, `code` the entity of each."""

    code: np.ndarray
    words: np.ndarray


def build_records(layout: TileLayout, events: Events) -> Records:
    """Aggregate events into one record for each (entity, tile, since). The events' tiles are those of their hop."""
    order = _grouped(events)
    starts = _starts(events.code[order], events.tile[order], events.since[order])
    words = np.zeros((len(starts), layout.words), dtype=np.int64)
    if len(starts) == 0:
        return Records(code=np.zeros(0, dtype=np.int64), words=words)
    heads = order[starts]
    words[:, TILE] = events.tile[heads]
    words[:, SINCE] = events.since[heads]
    words[:, NEWEST] = np.maximum.reduceat(events.event[order], starts)
    record = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    for column in layout.columns:
        _fill_column(words, column, events, order, record)
    return Records(code=events.code[heads], words=words)


def _grouped(events: Events) -> np.ndarray:
    """Positions by (code, tile, since), in each group by (event, known, position)."""
    by = {"code": events.code, "tile": events.tile, "since": events.since, "event": events.event, "known": events.known}
    if len(events) > _FEW_EVENTS:
        return pl.DataFrame(by).select(pl.arg_sort_by(*by, maintain_order=True)).to_numpy()[:, 0].astype(np.int64)
    packed = _packed_order(events)
    return np.lexsort(tuple(reversed(by.values()))) if packed is None else packed


def _packed_order(events: Events) -> np.ndarray | None:
    """The same for events that came in order of time and whose time has come: one sort of one number for each."""
    size = len(events)
    if size == 0 or events.since.any():
        return None
    lowest = int(events.tile.min())
    span = int(events.tile.max()) - lowest + 1
    if (int(events.code.max()) + 1) * span * size >= 2**62:
        return None
    packed = ((events.code * span + (events.tile - lowest)) * size) + np.arange(size)
    packed.sort()
    group, order = np.divmod(packed, size)
    event, known = events.event[order], events.known[order]
    later = (event[1:] > event[:-1]) | ((event[1:] == event[:-1]) & (known[1:] >= known[:-1]))
    return order if bool((later | (group[1:] != group[:-1])).all()) else None


def _starts(*parts: np.ndarray) -> np.ndarray:
    if len(parts[0]) == 0:
        return np.zeros(0, dtype=np.int64)
    changes = np.zeros(len(parts[0]), dtype=bool)
    changes[0] = True
    for part in parts:
        changes[1:] |= part[1:] != part[:-1]
    return np.flatnonzero(changes)


def _fill_column(words: np.ndarray, column: ColumnWords, events: Events, order: np.ndarray, record: np.ndarray) -> None:
    """Write the partials of one column; where a record has no value of it, the identities."""
    real = words.view(np.float64)
    numbers = words if column.needs.whole else real
    _write_identities(words, numbers, column)
    if not column.needs.column:
        words[:, column.count] = np.bincount(record, minlength=len(words))
        return
    values = events.columns[column.needs.column]
    if values.there is not None:
        kept = values.there[order]
        order, record = order[kept], record[kept]
    if len(order) == 0:
        return
    starts = _starts(record)
    mine = record[starts]
    words[mine, column.count] = np.diff(starts, append=len(record))
    if column.distinct is not None:
        _fill_sketch(words, column.distinct, values.gather(order), record)
    if column.needs.has_values:
        measured = values.numbers(column.needs)[order]
        _fill_numbers(words, numbers, column, measured, starts, mine)
        _fill_ends(words, numbers, column, events, order, measured, starts, mine)


def _write_identities(words: np.ndarray, numbers: np.ndarray, column: ColumnWords) -> None:
    if column.lowest is not None:
        numbers[:, column.lowest] = GREATEST if column.needs.whole else np.inf
    if column.highest is not None:
        numbers[:, column.highest] = LEAST if column.needs.whole else -np.inf
    if column.first is not None:
        words[:, column.first : column.first + 2] = GREATEST
    if column.last is not None:
        words[:, column.last : column.last + 2] = LEAST


def _fill_numbers(
    words: np.ndarray,
    numbers: np.ndarray,
    column: ColumnWords,
    values: np.ndarray,
    starts: np.ndarray,
    mine: np.ndarray,
) -> None:
    if column.lowest is not None:
        numbers[mine, column.lowest] = np.minimum.reduceat(values, starts)
    if column.highest is not None:
        numbers[mine, column.highest] = np.maximum.reduceat(values, starts)
    if column.total is None:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        total = _totals(values, starts)
        numbers[mine, column.total] = total
        if column.spread is not None:
            count = words[mine, column.count]
            apart = values - np.repeat(total / count, count)
            words.view(np.float64)[mine, column.spread] = np.add.reduceat(apart * apart, starts)


def _totals(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of stretches of values; WIDE where a sum of whole ones is more than 64 bits hold."""
    if values.dtype != np.int64 or max(-int(values.min()), int(values.max())) * len(values) < -WIDE:
        return np.add.reduceat(values, starts)
    total, unfit = joined(np.add.reduceat(values >> 32, starts), np.add.reduceat(values & LOW, starts))
    return np.where(unfit, WIDE, total)


def _fill_ends(
    words: np.ndarray,
    numbers: np.ndarray,
    column: ColumnWords,
    events: Events,
    order: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    mine: np.ndarray,
) -> None:
    if column.first is None and column.last is None:
        return
    ends = np.append(starts[1:], len(order)) - 1
    for place, chosen in ((column.first, starts), (column.last, ends)):
        if place is not None:
            words[mine, place] = events.event[order[chosen]]
            words[mine, place + 1] = events.known[order[chosen]]
            numbers[mine, place + 2] = values[chosen]


def _fill_sketch(words: np.ndarray, place: int, values: pl.Series, record: np.ndarray) -> None:
    index, run = registers_of(values)
    registers = np.zeros((len(words), REGISTERS), dtype=np.uint8)
    np.maximum.at(registers.reshape(-1), record * REGISTERS + index, run)
    words[:, place : place + REGISTERS // 8] = registers.view(np.int64)
