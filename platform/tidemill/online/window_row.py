"""The usual question to windows, the short way: one row, every entity known, no objective to judge its age by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from tidemill.definitions.catalog import View
from tidemill.definitions.types import ValueType
from tidemill.online.key_columns import KeyColumns, Row
from tidemill.online.result import OnlineResult
from tidemill.online.row_columns import columns_of_row
from tidemill.online.tiles import TileGroup, TilePlan


class WindowRow:
    """Decodes one row of windows. `places` gives for each column of the answer its name, its view and its place among
    the features asked of that view."""

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
        self.replies, self.glance = len(keys), None
        firsts = [0, *accumulate(tiles.hops(number) for number in range(len(keys)))]
        self._groups = [
            (group, itemgetter(*(firsts[part.projection] + part.hop for part in group.parts), firsts[0]))
            for group in tiles.groups
        ]
        self._splits = [tiles.split(number) for number in range(len(keys))]
        starts = [0, *accumulate(len(group.readings) * len(group.parts) for group in tiles.groups)]
        slots: list[int] = []  # where each column's value is among those of all groups, reading by reading
        for _, view, column in places:
            group, reading, part = _place(tiles.groups, view, tiles.features(view)[column])
            slots.append(starts[group] + reading * len(tiles.groups[group].parts) + part)
        self._columns = columns_of_row(self._names, slots, starts[-1])
        self._times = [_newest(tiles.groups, view) for view in range(len(keys))]

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

    def decode(self, replies: Sequence[Any], at: int, *, seen: bool = False) -> OnlineResult | None:
        """The answer; None where an entity has no tiles, or something that is none, which takes the long way. There is
        no glance at tiles."""
        if seen or len(replies) != self.replies or set(map(type, replies)) != {bytes}:
            return None
        logs: list[bytes] = []
        for split, blob in zip(self._splits, replies, strict=True):
            logs += split(blob)
        row, newest = [], []
        for group, pick in self._groups:
            found = group.read_one(pick(logs)[:-1], at)
            if found is None:
                return None
            for values in found[0]:
                row += values
            newest.append(found[1])
        moments = []
        for group, part, window, read in self._times:
            event = newest[group][part]
            if event is None:
                return None
            if event < at - window and event < read.oldest_newest(at):
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


def _newest(groups: Sequence[TileGroup], view: int) -> tuple[int, int, int, Any]:
    """The part that tells a view's event time, and the window in which it does."""
    return next(
        (number, place, part.newest_of, part)
        for number, group in enumerate(groups)
        for place, part in enumerate(group.parts)
        if part.projection == view and part.newest_of is not None
    )
