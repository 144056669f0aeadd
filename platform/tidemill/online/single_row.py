"""The usual answer to the usual question, the short way: one row, everything there and young enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError
from tidemill.online.connection import SMALL_CHUNK
from tidemill.online.hash_groups import HashGroup
from tidemill.online.key_columns import Row
from tidemill.online.result import OnlineResult
from tidemill.online.row_columns import columns_of_row

_EVER = 1 << 62  # microseconds: longer ago than any event


class SingleRow:
    """Reads a row of plain values. `places` gives for each column of the answer its name, its view and its place among
    the view's features; views are numbered through the groups.

    `commands(row)` gives as many commands as `replies` for a row, None where a key is null; it raises InputError like
    `ReadPlan.prepare`. `glance` mostly understands the answer without a parser, where it is one reply, and within the
    `expected` bytes.
    """

    expected = SMALL_CHUNK

    def __init__(
        self, groups: Sequence[HashGroup], places: Sequence[tuple[str, int, int]], dtypes: Mapping[str, ValueType]
    ) -> None:
        self._names = tuple(name for name, _, _ in places)
        self._views = tuple(view for _, view, _ in places)
        self._dtypes = dtypes
        self._groups = groups
        self.replies = len(groups)
        self.commands = groups[0].command if len(groups) == 1 else self._commands
        self.glance = groups[0].glance if len(groups) == 1 else None
        slots: list[int] = []  # where `decode_row` of all groups leaves each column
        firsts, events, self._ages = [], [], []
        start = 0
        for group in groups:
            first, slots = len(slots), slots + [start + place for place in group.decoder.row_places]
            for view in group.views:
                firsts.append(first + view.start)
                events.append(slots[first + view.start + len(view.features)])
                self._ages.append(_EVER if view.oldest_allowed is None else view.oldest_allowed)
            start += group.decoder.row_width
        self._events = events
        self._youngest = min(self._ages)
        self._columns = columns_of_row(self._names, [slots[firsts[view] + column] for _, view, column in places], start)

    @classmethod
    def where_it_fits(
        cls, groups: Sequence[HashGroup], places: Sequence[tuple[str, int, int]], dtypes: Mapping[str, ValueType]
    ) -> SingleRow | None:
        """None where there is but one column."""
        return cls(groups, places, dtypes) if len(places) > 1 else None

    def decode(self, found: Sequence[Any], at: int, *, seen: bool = False) -> OnlineResult | None:
        """The answer from the replies, or from what a glance has seen; None where a row is missing, too old or stale,
        which takes the long way."""
        row = found if seen else self._row_of(found)
        if row is None:
            return None
        moments = [row[place] for place in self._events]
        if None in moments or (min(moments) < at - self._youngest and not self._are_young(moments, at)):
            return None
        return OnlineResult(
            names=self._names,
            values=self._columns(row),
            moments=moments,
            views=self._views,
            dtypes=self._dtypes,
            at=at,
        )

    def _are_young(self, moments: Sequence[int], at: int) -> bool:
        """Whether each view's value is young enough for that view."""
        return all(moment >= at - age for moment, age in zip(moments, self._ages, strict=True))

    def _commands(self, row: Row) -> bytes | None:
        out = b""
        for group in self._groups:
            command = group.command(row)
            if command is None:
                return None
            out += command
        return out

    def _row_of(self, replies: Sequence[Any]) -> list[Any] | None:
        if len(replies) != self.replies:
            return None
        row: list[Any] = []
        try:
            for group, reply in zip(self._groups, replies, strict=True):
                row += group.decoder.decode_row(reply)
        except WrongValueError:
            return None
        return row
