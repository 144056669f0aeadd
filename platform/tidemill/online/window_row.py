"""The usual question to windows, the short way: one row, every entity known, no objective to judge its age by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from tidemill.definitions.catalog import View
from tidemill.definitions.types import ValueType
from tidemill.online.connection import CHUNK
from tidemill.online.key_columns import KeyColumns, Row
from tidemill.online.result import OnlineResult
from tidemill.online.row_columns import columns_of_row
from tidemill.online.tile_log import Bytes
from tidemill.online.tile_row import row_reader
from tidemill.online.tiles import TileGroup, TilePlan

_BULK = ord("$")


class WindowRow:
    """Reads one row of windows. `places` gives for each column of the answer its name, its view and its place among
    the features asked of that view."""

    expected = CHUNK

    def __init__(
        self,
        tiles: TilePlan,
        keys: Sequence[KeyColumns],
        places: Sequence[tuple[str, int, int]],
        dtypes: Mapping[str, ValueType],
    ) -> None:
        self._tiles, self._keys, self._dtypes = tiles, keys, dtypes
        self._names = tuple(name for name, _, _ in places)
        self._owners = [view for _, view, _ in places]
        self.replies = len(keys)
        logs = [tiles.log(number) for number in range(len(keys))]
        self._takes = [log.take for log in logs]
        firsts = [0, *accumulate(len(log.layouts) for log in logs)]
        self._readers = [
            row_reader(group, [firsts[part.projection] + part.hop for part in group.parts]) for group in tiles.groups
        ]
        starts = [0, *accumulate(len(group.readings) * len(group.parts) for group in tiles.groups)]
        slots: list[int] = []  # where each column's value is among those of all groups, reading by reading
        for _, view, column in places:
            group, reading, part = _place(tiles.groups, view, tiles.features(view)[column])
            slots.append(starts[group] + reading * len(tiles.groups[group].parts) + part)
        self._columns = columns_of_row(self._names, slots, starts[-1])
        newest = [_newest(tiles.groups, view) for view in range(len(keys))]
        self._times = [(firsts[view] + part.hop, part.newest_of, part) for view, part in enumerate(newest)]

    @classmethod
    def where_it_fits(
        cls,
        tiles: TilePlan,
        keys: Sequence[KeyColumns],
        views: Sequence[View],
        places: Sequence[tuple[str, int, int]],
        dtypes: Mapping[str, ValueType],
    ) -> WindowRow | None:
        """None where a view has a freshness objective."""
        fits = bool(views) and all(view.freshness is None for view in views)
        return cls(tiles, keys, places, dtypes) if fits else None

    def commands(self, row: Row) -> bytes | None:
        """The commands for a row; None where a key is null. Raises InputError like `ReadPlan.prepare`."""
        out: list[bytes] = []
        for place, columns in enumerate(self._keys):
            part = columns.of_row(row)
            if part is None:
                return None
            out.append(self._tiles.commands(place, columns.head + part + columns.tail))
        return b"".join(out)

    def glance(self, data: bytes) -> list[Any] | None:
        """The logs in an answer that has come whole, without a copy; None where a key has none."""
        start, logs, view = 0, [], memoryview(data)
        for _ in self._takes:
            stop = data.find(b"\r\n", start)
            if stop < 0 or data[start] != _BULK:
                return None
            size, start = int(data[start + 1 : stop]), stop + 2
            if size < 0:
                return None
            logs.append(view[start : start + size])
            start += size + 2
        return logs if start == len(data) else None

    def decode(self, replies: Sequence[Any], at: int, *, seen: bool = False) -> OnlineResult | None:
        """The answer from the replies, or from what a glance has seen; None where an entity has no tiles, or something
        that is none, which takes the long way."""
        if not seen and (len(replies) != self.replies or set(map(type, replies)) != {bytes}):
            return None
        records: list[Bytes] = []
        sizes: list[int] = []
        events: list[int | None] = []
        for take, blob in zip(self._takes, replies, strict=True):
            if not take(blob, records, sizes, events):
                return None
        row: list[Any] = []
        for reader in self._readers:
            values = reader.read(records, sizes, at)
            if values is None:
                return None
            row += values
        moments = []
        for place, window, part in self._times:
            event = events[place]
            if event is None:
                return None
            if event < at - window and event < part.oldest_newest(at):
                event = None
            moments.append(event)
        return OnlineResult(
            names=self._names,
            values=self._columns(row),
            moments=moments,
            views=self._owners,
            dtypes=self._dtypes,
            at=at,
        )


def _place(groups: Sequence[TileGroup], view: int, feature: str) -> tuple[int, int, int]:
    """The group, reading and part that hold a feature."""
    return next(
        (number, part.names.index(feature), place)
        for number, group in enumerate(groups)
        for place, part in enumerate(group.parts)
        if part.projection == view and feature in part.names
    )


def _newest(groups: Sequence[TileGroup], view: int) -> Any:
    """The part that tells a view's event time."""
    return next(
        part for group in groups for part in group.parts if part.projection == view and part.newest_of is not None
    )
