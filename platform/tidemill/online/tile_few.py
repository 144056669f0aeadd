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
_Places = tuple[int, ...]


class FewEvents:
    """The records that a few events make in the tiles of some views, given in the order of the push script."""

    def __init__(self, logs: Sequence[TileLog], entities: Sequence[Entities]) -> None:
        bodies: dict[Any, _Body] = {}
        tiles: dict[Any, _Tiles] = {}
        for layout in (layout for log in logs for layout in log.layouts):
            body = bodies.setdefault(layout.build_shape, _Body(layout))
            tiles.setdefault(_alike(layout), _Tiles(layout, body))
        self._tiles, places = list(tiles.values()), {alike: place for place, alike in enumerate(tiles)}
        self._views = [
            (number, one, [places[_alike(layout)] for layout in log.layouts])
            for number, (log, one) in enumerate(zip(logs, entities, strict=True), start=1)
        ]

    def deltas(self, rows: FewRows, at: int) -> list[Delta]:
        """Redis keys and records, as `delta_of` gives them. `at` is the instant of the push, int microseconds."""
        since = [0 if instant <= at else instant for instant in map(max, rows.event, rows.known)]
        bodies: dict[_Body, dict[_Places, bytes]] = {}
        records = [_Records(tiles, bodies.setdefault(tiles.body, {}), rows, since, at) for tiles in self._tiles]
        found = [
            _delta(number, _by_entity(rows, entities), [records[place] for place in hops])
            for number, entities, hops in self._views
        ]
        return [delta for delta in found if delta.tiles]


def _alike(layout: TileLayout) -> tuple[Any, ...]:
    """Equal for layouts in which the same events make the same records."""
    return (layout.build_shape, layout.hop, layout.longest)


def _by_entity(rows: FewRows, entities: Entities) -> Mapping[bytes, _Places]:
    """The positions of the rows that are about each entity."""
    names = entities.names(rows.columns, len(rows))
    if len(rows) == 1:
        return {entities.keys(names)[0]: (0,)}
    found: dict[Any, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return dict(zip(entities.keys(found), map(tuple, found.values()), strict=True))


def _delta(number: int, by_entity: Mapping[bytes, _Places], hops: Sequence[_Records]) -> Delta:
    """The records of a view's entities in each hop."""
    keys: list[bytes] = []
    sizes: list[int] = []
    parts: list[list[bytes]] = [[] for _ in hops]
    for key, places in by_entity.items():
        found = [records[places] for records in hops]
        if any(found):
            keys.append(key)
            for part, some in zip(parts, found, strict=True):
                part += some
                sizes.append(len(some))
    said = ONE_EACH if sizes.count(1) == len(sizes) else struct.pack(f"<{len(sizes)}I", *sizes)
    arguments: list[bytes | int] = [number, len(keys), said]
    for records, part in zip(hops, parts, strict=True):
        arguments += (records.oldest, b"".join(part))
    return Delta(keys=keys, arguments=arguments, tiles=sum(sizes))


class _Tiles:
    """Tiles of one hop that keep certain partials of the events in a certain longest window."""

    def __init__(self, layout: TileLayout, body: _Body) -> None:
        self.hop, self.longest, self.body = layout.hop, layout.longest, body


class _Records(dict[_Places, list[bytes]]):
    """The records that some events of one entity make, by their positions; each made once, whoever the entity is."""

    def __init__(
        self, tiles: _Tiles, bodies: dict[_Places, bytes], rows: FewRows, since: Sequence[int], at: int
    ) -> None:
        self.oldest = (at - tiles.longest) // tiles.hop
        self._body, self._bodies, self._rows, self._since = tiles.body, bodies, rows, since
        self._tile = [event // tiles.hop for event in rows.event]

    def __missing__(self, places: _Places) -> list[bytes]:
        groups: dict[tuple[int, int], list[int]] = {}
        for row in places:
            if self._tile[row] >= self.oldest:
                groups.setdefault((self._tile[row], self._since[row]), []).append(row)
        found = self[places] = [
            _FRONT.pack(*tile) + self._words(tuple(groups[tile]))
            for tile in (sorted(groups) if len(groups) > 1 else groups)
        ]
        return found

    def _words(self, places: _Places) -> bytes:
        found = self._bodies.get(places)
        if found is None:
            found = self._bodies[places] = self._body.of(self._rows, places)
        return found


class _Body:
    """The words of a record from its newest event on; the same in every view and hop that keep the same partials."""

    def __init__(self, layout: TileLayout) -> None:
        self._columns, self._words = layout.columns, layout.words - HEADER
        self._pack = struct.Struct("<q" + "".join(_kinds(layout))).pack

    def of(self, rows: FewRows, places: Sequence[int]) -> bytes:
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
        return self._pack(event[places[-1]], *words)


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
