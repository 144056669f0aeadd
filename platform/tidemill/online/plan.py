"""The read plan: everything about a read that does not depend on its rows, worked out once for each feature service.

A read is then: take the keys out of the rows, put them between prepared bytes, one round trip, decode by column. Views
whose entities are the same share one Redis hash, and so one HMGET; windowed views add their tiles to the same trip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

from tidemill.definitions.catalog import AggregationFunction, Catalog, OnDemandView, Projection, StalePolicy, View
from tidemill.definitions.on_demand import evaluate, gather_inputs
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError, StaleFeaturesError
from tidemill.online.codec import WrongValueError
from tidemill.online.decoding import PACKED, FieldDecoder, FieldType, WrongValues
from tidemill.online.keys import KeyLayout, hash_field, key_layout, packed_field, time_field
from tidemill.online.packed import PackedSchema
from tidemill.online.result import OnlineResult, RowStates, Status
from tidemill.online.tiles import TilePlan, WindowColumns

Rows = Sequence[Mapping[str, Any]]

_PRESENT, _OLD, _MISSING = Status.PRESENT, Status.OUTSIDE_MAX_AGE, Status.NOT_FOUND
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One column of the answer."""

    name: str
    projection: str
    feature: str
    dtype: ValueType


@dataclass(kw_only=True)
class Request:
    """A read on its way: the commands to send, and what is needed to understand the replies."""

    packed: bytes
    replies: int
    rows: Rows
    present: list[list[int] | None] = field(default_factory=list)


@dataclass(slots=True)
class ViewColumns:
    """What one projection's replies said: its features' columns in order, and the states of the rows."""

    columns: list[list[Any]]
    states: RowStates


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
        self.wanted = _ordered(_wanted(catalog, projections, full_feature_names), order)
        self.names = tuple(item.name for item in self.wanted)
        self.dtypes = {item.name: item.dtype for item in self.wanted}
        self._on_demand = [
            (projection.name, catalog.on_demand_view(projection.view))
            for projection in projections
            if catalog.is_on_demand(projection.view)
        ]
        stored = _with_inputs(catalog, projections, [view for _, view in self._on_demand])
        self._groups = _groups(catalog, stored, layout, wrong)
        self._windows = [projection for projection in stored if _is_tiled(catalog.view(projection.view))]
        self._window_keys = [_KeyColumns.of(catalog, projection) for projection in self._windows]
        self._window_views = [catalog.view(projection.view) for projection in self._windows]
        self._tiles = TilePlan(
            catalog.project,
            [(view, p.features) for view, p in zip(self._window_views, self._windows, strict=True)],
        )
        self._wrong = wrong
        self._places = self._place_columns(stored)
        self._views = [view for _, view, _ in self._places]
        self._single = None if self._windows or self._on_demand else _SingleRow(self, self._groups, self._places)

    @property
    def keys(self) -> tuple[str, ...]:
        """The join keys a row must have, as the rows name them."""
        columns = [group.keys.columns for group in self._groups] + [keys.columns for keys in self._window_keys]
        return tuple(dict.fromkeys(name for names in columns for name in names))

    @property
    def request_fields(self) -> dict[str, ValueType]:
        """The fields a row must have besides its keys, for on-demand features."""
        return {item.name: item.dtype for _, view in self._on_demand for item in view.request}

    def prepare(self, rows: Rows) -> Request:
        """The commands for these rows. Raises InputError where a key is missing or of the wrong type."""
        request = Request(packed=b"", replies=0, rows=rows)
        if not rows:
            return request
        out: list[bytes] = []
        for group in self._groups:
            keys, present = group.keys.of_rows(rows)
            request.present.append(present)
            request.replies += len(keys)
            out.append(group.commands(keys))
        for place, columns in enumerate(self._window_keys):
            keys, present = columns.of_rows(rows)
            request.present.append(present)
            request.replies += len(keys) * self._tiles.width(place)
            out += [self._tiles.commands(place, columns.head + key + columns.tail) for key in keys]
        request.packed = b"".join(out)
        return request

    def decode(self, request: Request, replies: list[Any], at: int) -> OnlineResult:
        """The answer. `at` is the instant of the read in microseconds, from which ttl and freshness are counted.

        Raises StaleFeaturesError where a view's policy is to refuse values past its freshness objective.
        """
        rows, start = len(request.rows), 0
        if rows == 1 and self._single is not None:
            answer = self._single.decode(replies, at)
            if answer is not None:
                return answer
        found: list[ViewColumns] = []
        for place, group in enumerate(self._groups):
            present = request.present[place] if rows else None
            size = rows if present is None else len(present)
            found += group.decode(replies[start : start + size], rows, present, at)
            start += size
        if self._windows:
            found += self._decode_windows(request, replies[start:], rows, at)
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

    def _decode_windows(self, request: Request, replies: list[Any], rows: int, at: int) -> list[ViewColumns]:
        blobs, start = [], 0
        for place in range(len(self._windows)):
            width = self._tiles.width(place)
            present = request.present[len(self._groups) + place] if rows else None
            size = (rows if present is None else len(present)) * width
            mine = replies[start : start + size]
            blobs.append(mine if present is None else _spread(mine, present, rows, width))
            start += size
        answers = self._tiles.decode(blobs, at)
        return [
            self._window_columns(view, answer, at) for view, answer in zip(self._window_views, answers, strict=True)
        ]

    def _window_columns(self, view: View, answer: WindowColumns, at: int) -> ViewColumns:
        """A window without events is an answer too: its count is 0, though no entity was found."""
        if answer.broken:
            self._wrong.add(f"{view.name}:tiles", WrongValueError("the bytes are no tiles"))
        states = RowStates(event_times=answer.event_times)
        if not all(answer.found):
            states.base = [_PRESENT if found else _MISSING for found in answer.found]
        columns = ViewColumns(columns=list(answer.values.values()), states=states)
        if view.freshness is not None:
            _apply_freshness(view, columns, at)
        return columns

    def _evaluate(self, view: OnDemandView, found: Sequence[ViewColumns], rows: Rows) -> ViewColumns:
        """All rows in one call of the user's function."""
        inputs: dict[tuple[str, str], list[Any]] = {}
        for item in view.inputs:
            name = _hidden(item.view)
            place = self._features[name].index(item.feature)
            inputs[item.view, item.feature] = found[self._order[name]].columns[place]
        request = {item.name: _column(rows, item.name, f"the request field of {view.name!r}") for item in view.request}
        values = evaluate(view, self._root, gather_inputs(view, inputs, request)) if rows else {}
        columns = [values.get(feature.name, []) for feature in view.features]
        return ViewColumns(columns=columns, states=RowStates(event_times=[None] * len(rows)))


class _SingleRow:
    """The usual answer to the usual question: one row, everything there and young enough. Anything else takes the long
    way, for which `decode` answers None."""

    def __init__(self, plan: ReadPlan, groups: Sequence[_Group], places: Sequence[tuple[str, int, int]]) -> None:
        self._plan = plan
        self._decoders = [group.decoder for group in groups]
        self._times: list[tuple[int, int | None]] = []
        firsts, start = [], 0
        for group in groups:
            for view in group.views:
                firsts.append(start + view.start)
                self._times.append((start + view.start + len(view.features), view.oldest_allowed))
            start += len(group.fields)
        slots = [firsts[view] + column for _, view, column in places]
        self._pick = itemgetter(*slots) if len(slots) > 1 else None
        self._views = [view for _, view, _ in places]
        self.usable = bool(self._pick) and all(isinstance(v, _FeastViewRead) for group in groups for v in group.views)

    def decode(self, replies: list[Any], at: int) -> OnlineResult | None:
        if not self.usable or len(replies) != len(self._decoders):
            return None
        if len(replies) == 1:
            row = self._decoders[0].decode_row(replies[0])
        else:
            row = [v for d, reply in zip(self._decoders, replies, strict=True) for v in d.decode_row(reply)]
        states = []
        for place, allowed in self._times:
            event = row[place]
            if event is None or (allowed is not None and event < at - allowed):
                return None
            states.append(RowStates((event,)))
        plan = self._plan
        return OnlineResult(
            names=plan.names,
            values={name: [value] for name, value in zip(plan.names, self._pick(row), strict=True)},  # type: ignore[misc]
            states=states,
            views=self._views,
            dtypes=plan.dtypes,
            at=at,
        )


def _wanted(catalog: Catalog, projections: Sequence[Projection], full_names: bool) -> tuple[Wanted, ...]:
    found: list[Wanted] = []
    for projection in projections:
        on_demand = catalog.is_on_demand(projection.view)
        view = catalog.on_demand_view(projection.view) if on_demand else catalog.view(projection.view)
        found += [
            Wanted(
                name=f"{projection.name}__{name}" if full_names else name,
                projection=projection.name,
                feature=name,
                dtype=view.feature(name).dtype,
            )
            for name in projection.features
        ]
    _refuse_equal_names(found)
    return tuple(found)


def _ordered(wanted: tuple[Wanted, ...], order: Sequence[str] | None) -> tuple[Wanted, ...]:
    if order is None:
        return wanted
    by_name = {f"{item.projection}:{item.feature}": item for item in wanted}
    return tuple(by_name[name] for name in dict.fromkeys(order))


def _refuse_equal_names(wanted: Sequence[Wanted]) -> None:
    taken: dict[str, Wanted] = {}
    for item in wanted:
        other = taken.setdefault(item.name, item)
        if other is not item:
            raise DefinitionError(
                f"Two columns would be named {item.name!r}: {other.projection}:{other.feature} and "
                f"{item.projection}:{item.feature}.",
                hint="Ask for full feature names, or give one of the views an alias.",
            )


def _hidden(view: str) -> str:
    """The name under which a view is read as input of on-demand views, beside whatever the service takes of it."""
    return f"\0{view}"


def _with_inputs(
    catalog: Catalog, projections: Sequence[Projection], on_demand: Sequence[OnDemandView]
) -> list[Projection]:
    """The stored projections, and one more for each view that on-demand views read."""
    stored = [projection for projection in projections if not catalog.is_on_demand(projection.view)]
    inputs: dict[str, dict[str, None]] = {}
    for view in on_demand:
        for item in view.inputs:
            inputs.setdefault(item.view, {})[item.feature] = None
    for view, features in inputs.items():
        joined = next((p.join_key_map for p in stored if p.view == view), ())
        stored.append(Projection(view=view, features=tuple(features), alias=_hidden(view), join_key_map=joined))
    return stored


def _is_tiled(view: View) -> bool:
    """A windowed view kept current by events lies in tiles; one that runs on a schedule is written as plain values."""
    return view.is_windowed and view.is_pushed


@dataclass(frozen=True, kw_only=True)
class _KeyColumns:
    """Which columns of a row make the key of one kind of entity."""

    layout: KeyLayout
    columns: tuple[str, ...]
    head: bytes
    tail: bytes
    entity_less: bool

    @classmethod
    def of(cls, catalog: Catalog, projection: Projection) -> _KeyColumns:
        view = catalog.view(projection.view)
        layout, names = key_layout(catalog, view), dict(projection.join_key_map)
        columns = tuple(names.get(name, name) for name in view.join_keys)
        return cls(layout=layout, columns=columns, head=layout.head, tail=layout.tail, entity_less=not view.join_keys)

    def of_rows(self, rows: Rows) -> tuple[list[bytes], list[int] | None]:
        """The changing part of each row's key, and which rows have one (None: all of them)."""
        if self.entity_less:
            return self.layout.parts([[""] * len(rows)]), None  # type: ignore[return-value]
        parts = self.layout.parts([_column(rows, name, "the key") for name in self.columns])
        if None not in parts:
            return parts, None  # type: ignore[return-value]
        present = [place for place, part in enumerate(parts) if part is not None]
        return [parts[place] for place in present], present  # type: ignore[misc]


def _column(rows: Rows, name: str, what: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        place = next(place for place, row in enumerate(rows) if name not in row)
        raise InputError(
            f"Row {place} lacks {what} {name!r}; it has: {', '.join(map(str, rows[place])) or 'nothing'}.",
            hint="Give it, or null where it is not known.",
        ) from None


class _Group:
    """Views whose entities are the same: one hash, one HMGET."""

    def __init__(self, keys: _KeyColumns) -> None:
        self.keys = keys
        self.fields: list[tuple[bytes, str, FieldType]] = []
        self.views: list[_ViewRead] = []

    def add(self, view: _ViewRead) -> None:
        view.start = len(self.fields)
        self.fields += view.fields()
        self.views.append(view)

    def close(self, wrong: WrongValues) -> None:
        """Prepare the bytes around a key, and the decoding of what comes back."""
        self.decoder = FieldDecoder([(name, dtype) for _, name, dtype in self.fields], wrong)
        self._before = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(self.fields) + 2)
        fields = b"".join(b"$%d\r\n%s\r\n" % (len(raw), raw) for raw, _, _ in self.fields)
        self._after = self.keys.tail + b"\r\n" + fields
        self._around = len(self.keys.head) + len(self.keys.tail)
        self._prefixes: dict[int, bytes] = {}

    def commands(self, parts: Sequence[bytes]) -> bytes:
        after, prefixes, around = self._after, self._prefixes, self._around
        out = []
        for part in parts:
            size = len(part)
            prefix = prefixes.get(size)
            if prefix is None:
                prefix = b"%s%d\r\n%s" % (self._before, size + around, self.keys.head)
                if size < 256:
                    prefixes[size] = prefix
            out.append(prefix + part + after)
        return b"".join(out)

    def decode(self, replies: list[Any], rows: int, present: list[int] | None, at: int) -> list[ViewColumns]:
        columns = self.decoder.decode(replies)
        if present is not None:
            columns = [_spread(column, present, rows, 1) for column in columns]
        return [view.decode(columns, at) for view in self.views]


def _spread(found: Sequence[Any], present: list[int], rows: int, width: int) -> list[Any]:
    """Replies of some rows at their places among all rows, None elsewhere."""
    out: list[Any] = [None] * (rows * width)
    for at, place in enumerate(present):
        out[place * width : (place + 1) * width] = found[at * width : (at + 1) * width]
    return out


class _ViewRead:
    """The features taken from one view by one projection. `start` is where its fields begin in the command."""

    def __init__(self, view: View, projection: Projection, wrong: WrongValues) -> None:
        self.name, self.view, self.start = projection.name, view, 0
        self.features = projection.features
        self.ttl = 0 if view.is_windowed else view.ttl // _MICROSECOND
        counted = {item.name for item in view.aggregations if item.function is AggregationFunction.COUNT}
        self.nothing = [0 if name in counted else None for name in self.features]
        self.wrong = wrong

    @property
    def oldest_allowed(self) -> int | None:
        """Microseconds up to which a value is neither too old nor stale; None for ever."""
        ages = [self.ttl] if self.ttl else []
        if self.view.freshness is not None:
            ages.append(self.view.freshness.max_age // _MICROSECOND)
        return min(ages, default=None)

    def fields(self) -> list[tuple[bytes, str, FieldType]]:
        """Each field of the hash with its name for people and its type; None is an event time."""
        raise NotImplementedError

    def read(self, columns: Sequence[list[Any]]) -> tuple[list[int | None], list[list[Any]]]:
        """Event times, and the features' columns."""
        raise NotImplementedError

    def decode(self, columns: Sequence[list[Any]], at: int) -> ViewColumns:
        event_times, found = self.read(columns)
        states = RowStates(event_times)
        answer = ViewColumns(found, states)
        oldest = at - self.ttl if self.ttl else None
        if None in event_times or (oldest is not None and event_times and min(event_times) < oldest):  # type: ignore[type-var]
            states.base = [
                _MISSING if event is None else _OLD if oldest is not None and event < oldest else _PRESENT
                for event in event_times
            ]
        if self.view.freshness is not None:
            _apply_freshness(self.view, answer, at)
        if states.base is not None:
            answer.columns = [
                _only_present(column, states.base, nothing)
                for column, nothing in zip(answer.columns, self.nothing, strict=True)
            ]
        return answer


def _only_present(column: list[Any], base: list[Status], nothing: Any) -> list[Any]:
    """Values of rows that are there and young enough; `nothing` is what an entity never written has."""
    return [
        value if state is _PRESENT else nothing if state is _MISSING else None
        for value, state in zip(column, base, strict=True)
    ]


class _FeastViewRead(_ViewRead):
    """A field for each feature, and one for the event time."""

    def fields(self) -> list[tuple[bytes, str, FieldType]]:
        view = self.view
        found: list[tuple[bytes, str, FieldType]] = [
            (hash_field(view.name, name), f"{view.name}:{name}", view.feature(name).dtype) for name in self.features
        ]
        return [*found, (time_field(view.name), f"{view.name}:event time", None)]

    def read(self, columns: Sequence[list[Any]]) -> tuple[list[int | None], list[list[Any]]]:
        end = self.start + len(self.features)
        return columns[end], list(columns[self.start : end])


class _PackedViewRead(_ViewRead):
    """One field for the whole view."""

    def __init__(self, view: View, projection: Projection, wrong: WrongValues) -> None:
        super().__init__(view, projection, wrong)
        self._schema = PackedSchema(view.features)
        order = [feature.name for feature in view.features]
        self._places = [order.index(name) for name in self.features]

    def fields(self) -> list[tuple[bytes, str, FieldType]]:
        return [(packed_field(self.view.name), f"{self.view.name}:packed value", PACKED)]

    def read(self, columns: Sequence[list[Any]]) -> tuple[list[int | None], list[list[Any]]]:
        raw = columns[self.start]
        try:
            return self._schema.decode(raw, self._places)
        except WrongValueError:
            return self._row_by_row(raw)

    def _row_by_row(self, raw: Sequence[bytes | None]) -> tuple[list[int | None], list[list[Any]]]:
        """Written under another definition, or no packed value at all: as if it had never been written."""
        event_times: list[int | None] = []
        columns: list[list[Any]] = [[] for _ in self._places]
        for item in raw:
            event, values = None, [None] * len(self.view.features)
            if item is not None:
                try:
                    event, values = self._schema.decode_row(item)
                except WrongValueError as error:
                    self.wrong.add(f"{self.view.name}:packed value", error)
            event_times.append(event)
            for column, place in zip(columns, self._places, strict=True):
                column.append(values[place])
        return event_times, columns


def _groups(catalog: Catalog, stored: Sequence[Projection], layout: str, wrong: WrongValues) -> list[_Group]:
    groups: dict[tuple[KeyLayout, tuple[str, ...]], _Group] = {}
    kind = _PackedViewRead if layout == "packed" else _FeastViewRead
    for projection in stored:
        view = catalog.view(projection.view)
        if _is_tiled(view):
            continue
        for name in projection.features:
            view.feature(name)  # an unknown one is told by its name
        keys = _KeyColumns.of(catalog, projection)
        group = groups.setdefault((keys.layout, keys.columns), _Group(keys))
        group.add(kind(view, projection, wrong))
    for group in groups.values():
        group.close(wrong)
    return list(groups.values())


def _apply_freshness(view: View, answer: ViewColumns, at: int) -> None:
    """Mark rows older than the view's objective, and do with them what its policy says."""
    freshness, states = view.freshness, answer.states
    if freshness is None:
        return
    oldest = at - freshness.max_age // _MICROSECOND
    base = states.base or [_PRESENT] * len(states.event_times)
    stale = [
        event is not None and event < oldest and state is _PRESENT
        for event, state in zip(states.event_times, base, strict=True)
    ]
    if not any(stale):
        return
    states.stale = stale
    if freshness.policy is StalePolicy.REFUSE:
        age = (at - min(event for event, old in zip(states.event_times, stale, strict=True) if old)) / 1_000_000  # type: ignore[type-var]
        most = freshness.max_age.total_seconds()
        raise StaleFeaturesError(
            f"Features of view {view.name!r} are {age:,.0f} s old, and its policy refuses more than {most:,.0f} s.",
            hint="See `tidemill runs` for why it was not materialized.",
        )
    if freshness.policy is StalePolicy.NULL:
        states.base = [_OLD if old else state for state, old in zip(base, stale, strict=True)]
        answer.columns = [
            [None if old else value for value, old in zip(column, stale, strict=True)] for column in answer.columns
        ]
