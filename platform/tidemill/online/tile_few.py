"""From a few events to records of tiles, one value at a time: what `tile_build` does for many, with the same result."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.online.push_few import FewRows
from tidemill.online.tile_delta import ONE_EACH, Delta
from tidemill.online.tile_entities import Entities
from tidemill.online.tile_layout import GREATEST, HEADER, LEAST, ColumnWords, TileLayout
from tidemill.online.tile_log import TileLog

_FRONT = struct.Struct("<2q")
_Bodies = dict[tuple[int, tuple[int, ...]], bytes]


class FewEvents:
    """The records that a few events make in the tiles of some views, given in the order of the push script."""

    def __init__(self, logs: Sequence[TileLog], entities: Sequence[Entities]) -> None:
        bodies: dict[Any, _Body] = {}
        for layout in (layout for log in logs for layout in log.layouts):
            bodies.setdefault(layout.build_shape, _Body(layout, len(bodies)))
        self._views = [
            (log, of_view, [bodies[layout.build_shape] for layout in log.layouts])
            for log, of_view in zip(logs, entities, strict=True)
        ]

    def deltas(self, rows: FewRows, at: int) -> list[Delta]:
        """Redis keys and records, as `delta_of` gives them. `at` is the instant of the push, int microseconds."""
        counts_from = map(max, rows.event, rows.known)
        since = [0 if instant <= at else instant for instant in counts_from]
        made: _Bodies = {}
        found = [
            _delta(number, log, _by_entity(rows, entities), bodies, rows, since, at, made)
            for number, (log, entities, bodies) in enumerate(self._views, start=1)
        ]
        return [delta for delta in found if delta.tiles]


def _by_entity(rows: FewRows, entities: Entities) -> Mapping[bytes, list[int]]:
    """The positions of the rows that are about each entity."""
    names = entities.view.join_keys
    if len(rows) == 1:
        return {entities.key(tuple([rows.columns[name][0] for name in names])): [0]}
    keys = zip(*(rows.columns[name] for name in names), strict=True) if names else [()] * len(rows)
    found: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return {entities.key(key): places for key, places in found.items()}


def _delta(
    number: int,
    log: TileLog,
    by_entity: Mapping[bytes, list[int]],
    bodies: Sequence[_Body],
    rows: FewRows,
    since: Sequence[int],
    at: int,
    made: _Bodies,
) -> Delta:
    keys: list[bytes] = []
    sizes: list[int] = []
    records: list[list[bytes]] = [[] for _ in bodies]
    oldest = [layout.oldest_tile(at) for layout in log.layouts]
    for key, places in by_entity.items():
        counts = []
        for hop, body in enumerate(bodies):
            some = _records(log.layouts[hop].hop, oldest[hop], body, places, rows, since, made)
            records[hop] += some
            counts.append(len(some))
        if any(counts):
            keys.append(key)
            sizes += counts
    said = ONE_EACH if sizes.count(1) == len(sizes) else struct.pack(f"<{len(sizes)}I", *sizes)
    arguments: list[bytes | int] = [number, len(keys), said]
    for first, of_hop in zip(oldest, records, strict=True):
        arguments += (first, b"".join(of_hop))
    return Delta(keys=keys, arguments=arguments, tiles=sum(sizes))


def _records(
    hop: int,
    oldest: int,
    body: _Body,
    places: Sequence[int],
    rows: FewRows,
    since: Sequence[int],
    made: _Bodies,
) -> list[bytes]:
    """One entity's records, in order of tile and of when they count."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row in places:
        tile = rows.event[row] // hop
        if tile >= oldest:
            groups.setdefault((tile, since[row]), []).append(row)
    ordered = groups if len(groups) == 1 else sorted(groups)
    return [_FRONT.pack(*tile) + body.of(rows, tuple(groups[tile]), made) for tile in ordered]


class _Body:
    """The words of a record from its newest event on; the same in every view and hop that keep the same partials."""

    def __init__(self, layout: TileLayout, number: int) -> None:
        """`number` tells it from other bodies."""
        self._number, self._columns = number, layout.columns
        self._words = layout.words - HEADER
        self._pack = struct.Struct("<q" + "".join(_kinds(layout)))

    def of(self, rows: FewRows, places: tuple[int, ...], made: _Bodies) -> bytes:
        found = made.get((self._number, places))
        if found is None:
            found = made[self._number, places] = self._made(rows, places)
        return found

    def _made(self, rows: FewRows, places: Sequence[int]) -> bytes:
        event, known = rows.event, rows.known
        if len(places) > 1:
            places = sorted(places, key=lambda row: (event[row], known[row], row))
        words: list[Any] = [0] * self._words
        for column in self._columns:
            if column.needs.column:
                values = rows.columns[column.needs.column]
                _fill(words, column, values, [row for row in places if values[row] is not None], rows)
            else:
                words[column.count - HEADER] = len(places)
        return self._pack.pack(event[places[-1]], *words)


def _kinds(layout: TileLayout) -> list[str]:
    """Whether each word is a whole number or not, as `struct` says it."""
    kinds = ["q"] * (layout.words - HEADER)
    for column in layout.columns:
        kind = "q" if column.needs.whole else "d"
        for word in (column.total, column.lowest, column.highest, _value_of(column.first), _value_of(column.last)):
            if word is not None:
                kinds[word - HEADER] = kind
        if column.spread is not None:
            kinds[column.spread - HEADER] = "d"
    return kinds


def _value_of(end: int | None) -> int | None:
    """The word with the value of a first or last event; before it lie its event and known time."""
    return None if end is None else end + 2


def _fill(words: list[Any], column: ColumnWords, values: Sequence[Any], there: Sequence[int], rows: FewRows) -> None:
    """Put in the partials of one column, whose values at `there` are in order of (event, known, position)."""
    whole = column.needs.whole
    words[column.count - HEADER] = len(there)
    found = [values[row] for row in there]
    if column.lowest is not None:
        words[column.lowest - HEADER] = min(found, default=GREATEST if whole else float("inf"))
    if column.highest is not None:
        words[column.highest - HEADER] = max(found, default=LEAST if whole else float("-inf"))
    if column.total is not None and found:
        total = _total(found, whole=whole)
        words[column.total - HEADER] = total
        if column.spread is not None:
            mean = float(total) / len(found)
            words[column.spread - HEADER] = sum((value - mean) * (value - mean) for value in found)
    for end, nothing, place in ((column.first, GREATEST, 0), (column.last, LEAST, -1)):
        if end is None:
            continue
        chosen = there[place] if there else None
        times = (nothing, nothing) if chosen is None else (rows.event[chosen], rows.known[chosen])
        value = (0 if whole else 0.0) if chosen is None else values[chosen]
        words[end - HEADER : end - HEADER + 3] = (*times, value)


def _total(values: Sequence[Any], *, whole: bool) -> Any:
    """The sum; a whole one wraps around as 64 bits do."""
    total = values[0]
    for value in values[1:]:
        total += value
    return (total + 2**63) % 2**64 - 2**63 if whole and not -(2**63) <= total < 2**63 else total
