"""From a few events to one command for Redis, compiled once for each stream: an event is a row of words, put in place
by one `struct`, and the keys of entities, kept as they are sent.

`tile_build` aggregates many events first; a few are merged one after the other by the script (`tile_push_few.lua`),
which costs Redis as much and the client a third.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from tidemill.online.bulk_strings import bulk
from tidemill.online.push_few import FewRows
from tidemill.online.tile_entities import Entities
from tidemill.online.tile_layout import GREATEST, HEADER, LEAST, TileLayout
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_script_few import few_script, kinds_of_tiles

_KEYS_KEPT = 50_000
_NOTHING, _ALWAYS, _EVENT, _FIRST_TILE = range(4)  # the first of the values of which an event's words are picked


class FewEvents:
    """The commands that write a few events into the tiles of some views.

    Args:
        names: the columns of the rows, in order.
        ids: where the ids of events are remembered; empty if the views name none.
        remember: for how many seconds.
    """

    def __init__(
        self,
        logs: Sequence[TileLog],
        entities: Sequence[Entities],
        names: Sequence[str],
        *,
        ids: str,
        locks: Sequence[str],
        remember: int,
        forever: bool,
    ) -> None:
        kinds = kinds_of_tiles(logs).values()
        self._span = -(-remember // 2)
        self.script = few_script(logs, remember=remember, span=self._span, has_ids=bool(ids), forever=forever)
        self.tiles_each = sum(len(log.layouts) for log in logs)
        self._words = _Words(list(kinds), names)
        self._entities = [(one.name_at(names), _Keys(one)) for one in entities]
        self._hops = [(layout.hop, layout.longest) for layout in kinds]
        self._oldest = struct.Struct(f"<{len(self._hops)}q").pack
        self._ids, self._locks = ids, b"".join(map(bulk, locks))
        self._fixed_keys = len(locks) + (5 if ids else 0)
        self._sets = (-1, b"")

    def command(self, rows: FewRows, ids: Sequence[str], at: int) -> bytes:
        """An EVALSHA of `script`. `ids` are those of the events that have one, no two equal; `at` int microseconds."""
        oldest = [(at - longest) // hop for hop, longest in self._hops]
        keys: list[bytes] = []
        events: list[bytes] = []
        for event, known, values in zip(rows.event, rows.known, rows.values, strict=True):
            keys += [kept[name(values)] for name, kept in self._entities]
            tiles = [event // hop for hop, _ in self._hops]
            words = self._words(event, known, tiles, values)
            if any(map(int.__lt__, tiles, oldest)):
                words += b"".join(b"0" if tile < first else b"1" for tile, first in zip(tiles, oldest, strict=True))
            events.append(b"$%d\r\n%b\r\n" % (len(words), words))
        count = self._fixed_keys + len(keys)
        head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b" % (
            6 + count + len(ids) + len(events),
            self.script.digest.encode(),
            bulk(count),
        )
        said = bulk(at), bulk(len(ids)), bulk(self._oldest(*oldest))
        return b"".join([head, self._sets_at(at), self._locks, *keys, *said, *map(bulk, ids), *events])

    def _sets_at(self, at: int) -> bytes:
        """Where ids are remembered, and the sets of now, of later, of before and of long before."""
        if not self._ids:
            return b""
        number = at // 1_000_000 // self._span
        kept, found = self._sets
        if kept != number:
            names = [f"{self._ids}:{self._span}:{number + apart}" for apart in (0, 1, -1, -2)]
            found = b"".join(map(bulk, (self._ids, *names)))
            self._sets = (number, found)
        return found


class _Keys(dict[Any, bytes]):
    """The keys of entities by name, as they are sent; those of the latest are kept."""

    def __init__(self, entities: Entities) -> None:
        self._entities = entities

    def __missing__(self, name: Any) -> bytes:
        found = bulk(self._entities.key(name))
        if len(self) >= _KEYS_KEPT:
            self.clear()
        self[name] = found
        return found


class _Words:
    """The records that one event makes of each kind of tiles, one after the other.

    Of an event some values are made that records are put together from: its time, the number of its tile of each kind,
    and of each column the value, or what takes its place where there is none. Which word is which of them is known.
    A word of 0 is also said of an event that its time has come, as it has of all that go this way.
    """

    def __init__(self, kinds: Sequence[TileLayout], names: Sequence[str]) -> None:
        columns = {column.needs.column: column.needs for layout in kinds for column in layout.columns}
        read = [name for name in columns if name]
        self._columns = [(names.index(name), _nothing(columns[name].whole)) for name in read]
        first, each = _FIRST_TILE + len(kinds), len(_nothing(whole=True))
        starts = {name: first + number * each for number, name in enumerate(read)}
        picked: list[int] = []
        formats = ""
        for number, layout in enumerate(kinds):
            picked += [_FIRST_TILE + number, _NOTHING, _EVENT, *_picked(layout, starts)]
            formats += "qqq" + "".join(_kinds(layout))
        self._pick: Callable[[Sequence[Any]], tuple[Any, ...]] = itemgetter(*picked)
        self._pack = struct.Struct("<" + formats).pack

    def __call__(self, event: int, known: int, tiles: Sequence[int], values: Sequence[Any]) -> bytes:
        pool = [0, 1, event, *tiles]
        for place, nothing in self._columns:
            value = values[place]
            pool += nothing if value is None else (1, value, value, value, event, known, value, event, known, value)
        return self._pack(*self._pick(pool))


def _nothing(whole: bool) -> tuple[Any, ...]:
    """Of a column without a value: count, total, lowest, highest, and time, known time and value of first and last."""
    bounds = (GREATEST, LEAST) if whole else (float("inf"), float("-inf"))
    return (0, 0, *bounds, GREATEST, GREATEST, 0, LEAST, LEAST, 0)


def _picked(layout: TileLayout, starts: dict[str, int]) -> list[int]:
    """Which of the values each word after the header is."""
    found = [_NOTHING] * (layout.words - HEADER)
    for column in layout.columns:
        if not column.needs.column:
            found[column.count - HEADER] = _ALWAYS
            continue
        words = [column.count, column.total, column.lowest, column.highest]
        for end in (column.first, column.last):
            words += [None, None, None] if end is None else [end, end + 1, end + 2]
        for number, word in enumerate(words):
            if word is not None:
                found[word - HEADER] = starts[column.needs.column] + number
    return found


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
