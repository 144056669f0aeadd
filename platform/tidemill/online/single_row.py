"""The usual answer to the usual question, the short way: one row, everything there and young enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError
from tidemill.online.hash_groups import HashGroup
from tidemill.online.key_columns import Row
from tidemill.online.result import OnlineResult, RowStates

_EVER = 1 << 62  # microseconds: longer ago than any event


class SingleRow:
    """Decodes a row of plain values. `places` gives for each column of the answer its name, its view and its place
    among the view's features; views are numbered through the groups."""

    def __init__(
        self, groups: Sequence[HashGroup], places: Sequence[tuple[str, int, int]], dtypes: Mapping[str, ValueType]
    ) -> None:
        self._names = tuple(name for name, _, _ in places)
        self._views = [view for _, view, _ in places]
        self._dtypes = dtypes
        self._blank: dict[str, list[Any]] = {name: [] for name in self._names}
        self._groups = groups
        self._reads = [group.decoder.decode_row for group in groups]
        slots: list[int] = []  # where `decode_row` of all groups leaves each column
        firsts, self._times = [], []
        start = 0
        for group in groups:
            first, slots = len(slots), slots + [start + place for place in group.decoder.row_places]
            for view in group.views:
                firsts.append(first + view.start)
                event = slots[first + view.start + len(view.features)]
                self._times.append((event, _EVER if view.oldest_allowed is None else view.oldest_allowed))
            start += group.decoder.row_width
        self._pick = itemgetter(*(slots[firsts[view] + column] for _, view, column in places))

    @classmethod
    def where_it_fits(
        cls, groups: Sequence[HashGroup], places: Sequence[tuple[str, int, int]], dtypes: Mapping[str, ValueType]
    ) -> SingleRow | None:
        """None where there is but one column."""
        return cls(groups, places, dtypes) if len(places) > 1 else None

    @property
    def replies(self) -> int:
        return len(self._groups)

    def commands(self, row: Row) -> bytes | None:
        """The commands for a row; None where a key is null. Raises InputError like `ReadPlan.prepare`."""
        out = b""
        for group in self._groups:
            part = group.keys.of_row(row)
            if part is None:
                return None
            out += group.command(part)
        return out

    def decode(self, replies: list[Any], at: int) -> OnlineResult | None:
        """The answer; None where a row is missing, too old or stale, which takes the long way."""
        if len(replies) != len(self._reads):
            return None
        row: list[Any] = []
        try:
            for read, reply in zip(self._reads, replies, strict=True):
                row += read(reply)
        except WrongValueError:
            return None
        states = []
        for place, allowed in self._times:
            event = row[place]
            if event is None or event < at - allowed:
                return None
            states.append(RowStates((event,)))
        values: dict[str, list[Any]] = self._blank.copy()  # a copy has room for all; a dict that grows is moved thrice
        for name, value in zip(self._names, self._pick(row), strict=True):
            values[name] = [value]
        return OnlineResult(
            names=self._names,
            values=values,
            states=states,
            views=self._views,
            dtypes=self._dtypes,
            at=at,
        )
