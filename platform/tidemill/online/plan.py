"""The read plan: everything about a read that does not depend on its rows, worked out once for each feature service.

A read is then: take the keys out of the rows, put them between prepared bytes, one round trip, decode by column. Views
whose entities are the same share one Redis hash, and so one HMGET; windowed views add their tiles to the same trip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tidemill.definitions.catalog import AggregationFunction, Catalog, OnDemandView, Projection, StalePolicy, View
from tidemill.definitions.on_demand import evaluate, gather_inputs
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError, StaleFeaturesError
from tidemill.online.codec import WrongValueError
from tidemill.online.decoding import Decoder, EventTimes, WrongValues, decoder
from tidemill.online.keys import KeyLayout, hash_field, key_layout, packed_field, time_field
from tidemill.online.packed import PackedSchema
from tidemill.online.result import OnlineResult, Status
from tidemill.online.tiles import TilePlan, WindowColumns

Rows = Sequence[Mapping[str, Any]]

_PRESENT, _NULL, _OLD, _MISSING = Status.PRESENT, Status.NULL_VALUE, Status.OUTSIDE_MAX_AGE, Status.NOT_FOUND
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


@dataclass(kw_only=True)
class ViewColumns:
    """What one projection's replies said: values by feature, and the state of each row."""

    values: dict[str, list[Any]]
    statuses: dict[str, Sequence[Status]]
    event_times: list[int | None]
    stale: list[bool]


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
        self._simple = not self._on_demand

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
        rows, found, start = len(request.rows), {}, 0
        for place, group in enumerate(self._groups):
            present = request.present[place] if rows else None
            size = rows if present is None else len(present)
            found |= group.decode(replies[start : start + size], rows, present, at)
            start += size
        if self._windows:
            found |= self._decode_windows(request, replies[start:], rows, at)
        for name, view in self._on_demand:
            found[name] = self._evaluate(view, found, request.rows)
        return self._answer(found, at)

    def _answer(self, found: Mapping[str, ViewColumns], at: int) -> OnlineResult:
        values, statuses, event_times, stale = {}, {}, {}, {}
        for item in self.wanted:
            columns, name = found[item.projection], item.name
            values[name] = columns.values[item.feature]
            statuses[name] = columns.statuses[item.feature]
            event_times[name] = columns.event_times
            stale[name] = columns.stale
        return OnlineResult(
            names=self.names,
            values=values,
            statuses=statuses,
            event_times=event_times,
            stale=stale,
            dtypes=self.dtypes,
            at=at,
        )

    def _decode_windows(self, request: Request, replies: list[Any], rows: int, at: int) -> dict[str, ViewColumns]:
        blobs, start = [], 0
        for place in range(len(self._windows)):
            width = self._tiles.width(place)
            present = request.present[len(self._groups) + place] if rows else None
            size = (rows if present is None else len(present)) * width
            mine = replies[start : start + size]
            blobs.append(mine if present is None else _spread(mine, present, rows, width))
            start += size
        answers = self._tiles.decode(blobs, at)
        return {
            projection.name: self._window_columns(view, answer, at)
            for projection, view, answer in zip(self._windows, self._window_views, answers, strict=True)
        }

    def _window_columns(self, view: View, answer: WindowColumns, at: int) -> ViewColumns:
        """A window without events is an answer too: its count is 0, though no entity was found."""
        if answer.broken:
            self._wrong.add(f"{view.name}:tiles", WrongValueError("the bytes are no tiles"))
        event_times = answer.event_times
        base = [_PRESENT if found else _MISSING for found in answer.found]
        columns = ViewColumns(values=answer.values, statuses={}, event_times=event_times, stale=[False] * len(base))
        if view.freshness is not None:
            _apply_freshness(view, columns, base, at)
        for name, values in columns.values.items():
            columns.statuses[name] = _statuses(values, base)
        return columns

    def _evaluate(self, view: OnDemandView, found: Mapping[str, ViewColumns], rows: Rows) -> ViewColumns:
        """All rows in one call of the user's function."""
        inputs = {(item.view, item.feature): found[_hidden(item.view)].values[item.feature] for item in view.inputs}
        request = {item.name: _column(rows, item.name, f"the request field of {view.name!r}") for item in view.request}
        values = evaluate(view, self._root, gather_inputs(view, inputs, request)) if rows else {}
        values = values or {feature.name: [] for feature in view.features}
        count = len(rows)
        present = [_PRESENT] * count
        return ViewColumns(
            values=values,
            statuses={name: _statuses(column, present) for name, column in values.items()},
            event_times=[None] * count,
            stale=[False] * count,
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
        self.fields: list[bytes] = []
        self.views: list[_ViewRead] = []

    def add(self, view: _ViewRead, fields: Sequence[bytes]) -> None:
        view.start = len(self.fields)
        self.fields += fields
        self.views.append(view)

    def close(self) -> None:
        """Prepare the bytes around a key."""
        self._before = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(self.fields) + 2)
        fields = b"".join(b"$%d\r\n%s\r\n" % (len(name), name) for name in self.fields)
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

    def decode(self, replies: list[Any], rows: int, present: list[int] | None, at: int) -> dict[str, ViewColumns]:
        if len(replies) == 1 and present is None:
            columns = [(raw,) for raw in replies[0]]
        elif replies:
            columns = list(zip(*replies, strict=True))
        else:
            columns = [()] * len(self.fields)
        if present is not None:
            columns = [_spread(column, present, rows, 1) for column in columns]
        return {view.name: view.decode(columns, at) for view in self.views}


def _spread(found: Sequence[Any], present: list[int], rows: int, width: int) -> list[Any]:
    """Replies of some rows at their places among all rows, None elsewhere."""
    out: list[Any] = [None] * (rows * width)
    for at, place in enumerate(present):
        out[place * width : (place + 1) * width] = found[at * width : (at + 1) * width]
    return out


class _ViewRead:
    """The features taken from one view by one projection."""

    def __init__(self, view: View, projection: Projection, wrong: WrongValues) -> None:
        self.name, self.view, self.start = projection.name, view, 0
        self.features = projection.features
        self.ttl = 0 if view.is_windowed else view.ttl // _MICROSECOND
        self.counts = frozenset(item.name for item in view.aggregations if item.function is AggregationFunction.COUNT)
        self.wrong = wrong

    def fields(self) -> list[bytes]:
        raise NotImplementedError

    def read(self, columns: Sequence[Sequence[Any]]) -> tuple[list[int | None], list[tuple[list[Any], bool]]]:
        """Event times; and for each feature its values and whether there may be nulls among them."""
        raise NotImplementedError

    def decode(self, columns: Sequence[Sequence[Any]], at: int) -> ViewColumns:
        event_times, found = self.read(columns)
        count = len(event_times)
        good = None not in event_times and (not self.ttl or not count or min(event_times) >= at - self.ttl)  # type: ignore[type-var]
        if not good or self.view.freshness is not None:
            return self._decode_carefully(event_times, found, at)
        present = [_PRESENT] * count
        values, statuses = {}, {}
        for name, (column, nulls) in zip(self.features, found, strict=True):
            values[name] = column
            statuses[name] = _statuses(column, present) if nulls else present
        return ViewColumns(values=values, statuses=statuses, event_times=event_times, stale=[False] * count)

    def _decode_carefully(
        self, event_times: list[int | None], found: list[tuple[list[Any], bool]], at: int
    ) -> ViewColumns:
        """Some rows are missing or too old: each row has a state that its values share."""
        oldest = at - self.ttl if self.ttl else None
        base = [
            _MISSING if event is None else _OLD if oldest is not None and event < oldest else _PRESENT
            for event in event_times
        ]
        values = {name: column for name, (column, _) in zip(self.features, found, strict=True)}
        columns = ViewColumns(values=values, statuses={}, event_times=event_times, stale=[False] * len(base))
        if self.view.freshness is not None:
            _apply_freshness(self.view, columns, base, at)
        for name in self.features:
            empty = 0 if name in self.counts else None
            columns.values[name] = [
                value if state is _PRESENT else empty if state is _MISSING else None
                for value, state in zip(values[name], base, strict=True)
            ]
            columns.statuses[name] = _statuses(columns.values[name], base)
        return columns


class _FeastViewRead(_ViewRead):
    """A field for each feature, and one for the event time."""

    def __init__(self, view: View, projection: Projection, wrong: WrongValues) -> None:
        super().__init__(view, projection, wrong)
        self._decoders: list[Decoder] = [
            decoder(f"{view.name}:{name}", view.feature(name).dtype, wrong) for name in self.features
        ]
        self._times = EventTimes(view.name, wrong)

    def fields(self) -> list[bytes]:
        return [*(hash_field(self.view.name, name) for name in self.features), time_field(self.view.name)]

    def read(self, columns: Sequence[Sequence[Any]]) -> tuple[list[int | None], list[tuple[list[Any], bool]]]:
        end = self.start + len(self.features)
        found = [decode(column) for decode, column in zip(self._decoders, columns[self.start : end], strict=True)]
        return self._times(columns[end]), found


class _PackedViewRead(_ViewRead):
    """One field for the whole view."""

    def __init__(self, view: View, projection: Projection, wrong: WrongValues) -> None:
        super().__init__(view, projection, wrong)
        self._schema = PackedSchema(view.features)
        order = [feature.name for feature in view.features]
        self._places = [order.index(name) for name in self.features]

    def fields(self) -> list[bytes]:
        return [packed_field(self.view.name)]

    def read(self, columns: Sequence[Sequence[Any]]) -> tuple[list[int | None], list[tuple[list[Any], bool]]]:
        raw = columns[self.start]
        try:
            event_times, found = self._schema.decode(raw, self._places)
        except WrongValueError:
            event_times, found = self._row_by_row(raw)
        return event_times, [(column, None in column) for column in found]

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
        read = kind(view, projection, wrong)
        group.add(read, read.fields())
    for group in groups.values():
        group.close()
    return list(groups.values())


def _statuses(values: Sequence[Any], base: list[Status]) -> Sequence[Status]:
    """A row's state for each of its values; a null in a row that is there is a null value."""
    if None not in values:
        return base
    return [_NULL if value is None and state is _PRESENT else state for value, state in zip(values, base, strict=True)]


def _apply_freshness(view: View, columns: ViewColumns, base: list[Status], at: int) -> None:
    """Mark rows older than the view's objective, and do with them what its policy says."""
    freshness = view.freshness
    if freshness is None:
        return
    oldest = at - freshness.max_age // _MICROSECOND
    columns.stale = [
        event is not None and event < oldest and state is _PRESENT
        for event, state in zip(columns.event_times, base, strict=True)
    ]
    if not any(columns.stale) or freshness.policy is StalePolicy.SERVE:
        return
    if freshness.policy is StalePolicy.REFUSE:
        oldest_found = min(event for event, old in zip(columns.event_times, columns.stale, strict=True) if old)  # type: ignore[type-var]
        age, most = (at - oldest_found) / 1_000_000, freshness.max_age.total_seconds()
        raise StaleFeaturesError(
            f"Features of view {view.name!r} are {age:,.0f} s old, and its policy refuses more than {most:,.0f} s.",
            hint="See `tidemill runs` for why it was not materialized.",
        )
    for place, old in enumerate(columns.stale):
        if old:
            base[place] = _OLD
    for name, values in columns.values.items():
        columns.values[name] = [None if old else value for value, old in zip(values, columns.stale, strict=True)]
