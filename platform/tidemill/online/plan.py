"""The read plan: everything about a read that does not depend on its rows, worked out once for each feature service.

A read is then: take the keys out of the rows, put them between prepared bytes, one round trip, decode by column. Views
whose entities are the same share one Redis hash, and so one HMGET; windowed views add their tiles to the same trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from tidemill.definitions.catalog import Catalog, OnDemandView, Projection, View
from tidemill.definitions.on_demand import evaluate, gather_inputs, input_types
from tidemill.online.asked_once import Asked, each_once
from tidemill.online.codec import WrongValueError
from tidemill.online.decoding import WrongValues
from tidemill.online.hash_groups import hash_groups
from tidemill.online.key_columns import KeyColumns, Rows, column_of
from tidemill.online.redis_refusals import is_refusal
from tidemill.online.reply_columns import WORTHWHILE, GroupColumns, ReplyColumns
from tidemill.online.result import OnlineResult, RowStates, Status, listed
from tidemill.online.single_row import SingleRow
from tidemill.online.tiles import TilePlan, WindowColumns
from tidemill.online.view_reads import ViewColumns, apply_freshness
from tidemill.online.wanted import columns_wanted, hidden, in_order, is_tiled, with_inputs
from tidemill.online.window_row import WindowRow

__all__ = ["ReadPlan", "Request", "Rows"]

_ENOUGH_FOR_ARRAYS = 32  # rows; an array costs as much as so many plain numbers
_ENOUGH_FOR_A_TABLE = 40  # rows; for fewer the parser is quicker
_FIRST_PART = 0.75  # of the rows; nobody works beside us while the second part is decoded


class Request:
    """A read on its way: the commands to send, and what is needed to understand the replies.

    `present` tells for each kind of key which rows have one, None all of them; `asked` for each windowed view which
    reply each row reads.
    """

    __slots__ = ("asked", "columns", "packed", "present", "replies", "rows")

    def __init__(self, rows: Rows, packed: bytes = b"", replies: int = 0) -> None:
        self.rows, self.packed, self.replies = rows, packed, replies
        self.present: list[list[int] | None] = []
        self.asked: list[Asked] = []
        self.columns: ReplyColumns | None = None


class TwoParts:
    """A read of many rows whose second part is prepared while Redis is busy with the first, and whose first part is
    decoded while it is busy with the second. Redis answers all that it was sent at once, so it must not be sent all."""

    def __init__(self, request: Request, pieces: Iterator[bytes]) -> None:
        self._request, self._pieces = request, pieces
        request.packed = next(pieces)
        self._first = request.replies
        self._rest: bytes | None = None

    def rest(self) -> tuple[bytes, int]:
        """Raises InputError like `ReadPlan.prepare`."""
        if self._rest is None:
            self._rest = b"".join(self._pieces)
        return self._rest, self._request.replies - self._first

    def take(self, replies: list[Any], /) -> None:
        if self._request.columns is not None:
            self._request.columns.take(replies)


class ReadPlan:
    """How one feature service, or one list of features, is read. Used by any number of threads.

    Raises DefinitionError where two columns would have the same name, NotDefinedError for an unknown view or feature.
    """

    def __init__(
        self,
        catalog: Catalog,
        projections: Sequence[Projection],
        *,
        root: Path,
        layout: str = "feast",
        full_feature_names: bool = False,
        wrong: WrongValues | None = None,
        order: Sequence[str] | None = None,
    ) -> None:
        """`order` gives the columns' order as `projection:feature`; default that of the projections."""
        self._root = root
        wrong = wrong or WrongValues()
        self.wanted = in_order(columns_wanted(catalog, projections, full_feature_names), order)
        self.names = tuple(item.name for item in self.wanted)
        self.dtypes = {item.name: item.dtype for item in self.wanted}
        self._on_demand = [
            (projection.name, catalog.on_demand_view(projection.view))
            for projection in projections
            if catalog.is_on_demand(projection.view)
        ]
        self._types = {view.name: input_types(catalog, view) for _, view in self._on_demand}
        stored = with_inputs(catalog, projections, [view for _, view in self._on_demand])
        self._groups = hash_groups(catalog, stored, layout, wrong)
        self._windows = [projection for projection in stored if is_tiled(catalog.view(projection.view))]
        self._window_keys = [KeyColumns.of(catalog, projection) for projection in self._windows]
        self._window_views = [catalog.view(projection.view) for projection in self._windows]
        self._tiles = TilePlan(
            catalog.project,
            [(view, p.features) for view, p in zip(self._window_views, self._windows, strict=True)],
        )
        self._wrong = wrong
        self._places = self._place_columns(stored)
        self._views = [view for _, view, _ in self._places]
        self.single = self._single_row()

    @property
    def keys(self) -> tuple[str, ...]:
        """The join keys a row must have, as the rows name them."""
        columns = [group.keys.columns for group in self._groups] + [keys.columns for keys in self._window_keys]
        return tuple(dict.fromkeys(name for names in columns for name in names))

    def prepare(self, rows: Rows) -> Request:
        """The commands for these rows. Raises InputError where a key is missing or of the wrong type."""
        if len(rows) == 1 and self.single is not None:
            packed = self.single.commands(rows[0])
            if packed is not None:
                return Request(rows, packed, self.single.replies)
        request = Request(rows)
        request.packed = b"".join(self._pieces(request, 1.0))
        return request

    def in_two_parts(self, rows: Rows) -> tuple[Request, TwoParts | None]:
        """The same, in two parts if there are rows enough to make it worth the while."""
        if len(rows) <= WORTHWHILE or not self._groups:
            return self.prepare(rows), None
        request = Request(rows)
        parts = TwoParts(request, self._pieces(request, _FIRST_PART))
        return (request, parts) if request.replies else (self.prepare(rows), None)

    def _pieces(self, request: Request, share: float) -> Iterator[bytes]:
        """The commands, of the first kind of key those of this share of the rows before the others; tells the request
        of them as they are made."""
        rows = request.rows
        sizes: list[int] = []
        for group in self._groups:
            present: list[int] = []
            size = ceil(share * len(rows)) or 1
            for start in range(0, len(rows), size):
                some, there = group.keys.of_rows(rows[start : start + size], first=start)
                present += range(start, start + len(some)) if there is None else [start + place for place in there]
                request.replies += len(some)
                yield group.commands(some)
            request.present.append(None if len(present) == len(rows) else present)
            sizes.append(len(present))
            share = 1.0
        if len(rows) > 1:
            request.columns = self._columns(sizes)
        for place, columns in enumerate(self._window_keys):
            keys, there = columns.of_rows(rows)
            keys, asked = each_once(keys, there, len(rows))
            request.asked.append(asked)
            request.replies += len(keys)
            yield from [self._tiles.commands(place, columns.head + key + columns.tail) for key in keys]

    def decode(self, request: Request, replies: list[Any], at: int, *, arrays: bool = False) -> OnlineResult:
        """The answer. `at` is the instant of the read in microseconds, from which ttl and freshness are counted. With
        `arrays`, columns of numbers may be arrays, if there are rows enough to make it worth the while.

        Raises StaleFeaturesError where a view's policy is to refuse values past its freshness objective.
        """
        if len(request.rows) == 1 and self.single is not None:
            answer = self.single.decode(replies, at)
            if answer is not None:
                return answer
        arrays = arrays and self._may_be_arrays(request)
        return self._answer(request, self._finish(request, replies, arrays=arrays), replies, at)

    def glance(self, request: Request) -> Callable[[bytes], GroupColumns | None] | None:
        """What may understand all replies without a parser; None where they are few, or not all of one kind."""
        groups = self._groups
        if len(groups) != 1 or self._windows or request.replies < _ENOUGH_FOR_A_TABLE or groups[0].table is None:
            return None
        return partial(groups[0].table, rows=request.replies)

    def decode_table(self, request: Request, table: GroupColumns, at: int, *, arrays: bool = False) -> OnlineResult:
        """`decode` of what the glance has found."""
        if not (arrays and self._may_be_arrays(request)):
            table = GroupColumns([listed(column) for column in table.columns], table.without_null)
        return self._answer(request, [self._groups[0].columns_of_table(table)], [], at)

    def judge(self, rows: Rows, row: Sequence[Any], at: int) -> OnlineResult:
        """The same for one row of which a glance has seen all values, or all logs of tiles."""
        if self._windows:
            return self._answer(Request(rows), [], [bytes(log) for log in row], at)
        return self._answer(Request(rows), [group.columns_of(row) for group in self._groups], [], at)

    def _answer(
        self, request: Request, columns_of_groups: Sequence[GroupColumns], replies: list[Any], at: int
    ) -> OnlineResult:
        rows = len(request.rows)
        found: list[ViewColumns] = []
        for place, (group, columns) in enumerate(zip(self._groups, columns_of_groups, strict=True)):
            found += group.decode(columns, rows, request.present[place] if request.present else None, at)
        if self._windows:
            found += self._decode_windows(request, replies, rows, at)
        for _, view in self._on_demand:
            found.append(self._evaluate(view, found, request.rows))
        return OnlineResult(
            names=self.names,
            values={name: found[view].columns[column] for name, view, column in self._places},
            states=[columns.states for columns in found],
            views=self._views,
            dtypes=self.dtypes,
            at=at,
        )

    def without_refusals(self, request: Request, replies: list[Any]) -> list[Any]:
        """The replies, with nothing found where Redis refused: a key of which somebody else has made something else."""
        groups = [group for group, size in zip(self._groups, self._sizes(request), strict=True) for _ in range(size)]
        found = list(replies)
        for place, reply in enumerate(replies):
            if is_refusal(reply):
                group = groups[place] if place < len(groups) else None
                name = "tiles" if group is None else group.views[0].name
                self._wrong.add(f"{name}: the whole key", reply)
                found[place] = None if group is None else [None] * group.fields
        return found

    def _columns(self, sizes: Sequence[int]) -> ReplyColumns:
        return ReplyColumns([(group.decoder, size) for group, size in zip(self._groups, sizes, strict=True)])

    def _may_be_arrays(self, request: Request) -> bool:
        """Not where a column is an argument of somebody's function, or has gaps for rows without a key."""
        complete = all(present is None for present in request.present)
        return complete and len(request.rows) >= _ENOUGH_FOR_ARRAYS and not self._on_demand

    def _finish(self, request: Request, replies: list[Any], *, arrays: bool) -> list[GroupColumns]:
        columns = request.columns or self._columns(self._sizes(request))
        return columns.finish(replies, arrays=arrays)

    def _sizes(self, request: Request) -> list[int]:
        """How many replies each group has."""
        rows = len(request.rows)
        present = request.present or [None] * len(self._groups)
        return [rows if places is None else len(places) for places in present[: len(self._groups)]]

    def _place_columns(self, stored: Sequence[Projection]) -> list[tuple[str, int, int]]:
        """For each column of the answer, where `decode` finds it: in which view, and where among its features."""
        features = {projection.name: projection.features for projection in stored}
        features |= {name: tuple(item.name for item in view.features) for name, view in self._on_demand}
        order = [view.name for group in self._groups for view in group.views]
        order += [projection.name for projection in self._windows] + [name for name, _ in self._on_demand]
        self._order = {name: place for place, name in enumerate(order)}
        self._features = features
        return [
            (item.name, self._order[item.projection], features[item.projection].index(item.feature))
            for item in self.wanted
        ]

    def _single_row(self) -> SingleRow | WindowRow | None:
        """The short way for one row, where all is plain or all are windows."""
        if self._on_demand or (self._windows and self._groups):
            return None
        if self._windows:
            return WindowRow.where_it_fits(
                self._tiles, self._window_keys, self._window_views, self._places, self.dtypes
            )
        return SingleRow.where_it_fits(self._groups, self._places, self.dtypes)

    def _decode_windows(self, request: Request, replies: list[Any], rows: int, at: int) -> list[ViewColumns]:
        everyone = [Asked(replies=rows)] * len(self._windows)
        asked, blobs, start = request.asked or everyone, [], sum(self._sizes(request))
        for one in asked:
            mine = replies[start : start + one.replies]
            blobs.append(mine if one.of_row is None else [*mine, None])
            start += one.replies
        answers = [
            answer if one.of_row is None else answer.of_rows(one.of_row)
            for answer, one in zip(self._tiles.decode(blobs, at), asked, strict=True)
        ]
        return [
            self._window_columns(view, answer, at) for view, answer in zip(self._window_views, answers, strict=True)
        ]

    def _window_columns(self, view: View, answer: WindowColumns, at: int) -> ViewColumns:
        """A window without events is an answer too: its count is 0, though no entity was found."""
        if answer.broken:
            self._wrong.add(f"{view.name}:tiles", WrongValueError("the bytes are no tiles"))
        for name in answer.wrong:
            self._wrong.add(f"{view.name}:{name}", WrongValueError("its type cannot hold the number"))
        states = RowStates(event_times=answer.event_times)
        if not all(answer.found):
            states.base = [Status.PRESENT if found else Status.NOT_FOUND for found in answer.found]
        columns = ViewColumns(columns=list(answer.values.values()), states=states)
        if view.freshness is not None:
            apply_freshness(view, columns, at)
        return columns

    def _evaluate(self, view: OnDemandView, found: Sequence[ViewColumns], rows: Rows) -> ViewColumns:
        """All rows in one call of the user's function."""
        inputs: dict[tuple[str, str], list[Any]] = {}
        for item in view.inputs:
            name = hidden(item.view)
            place = self._features[name].index(item.feature)
            inputs[item.view, item.feature] = found[self._order[name]].columns[place]
        request = {
            item.name: column_of(rows, item.name, f"the request field of {view.name!r}") for item in view.request
        }
        types = self._types[view.name]
        values = evaluate(view, self._root, gather_inputs(view, inputs, request), types) if rows else {}
        columns = [values.get(feature.name, []) for feature in view.features]
        return ViewColumns(columns=columns, states=RowStates(event_times=[None] * len(rows)))
