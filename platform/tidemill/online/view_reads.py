"""What one projection takes from one view: its fields in the hash, its columns, and how good each row is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tidemill.definitions.catalog import AggregationFunction, Projection, StalePolicy, View
from tidemill.errors import StaleFeaturesError
from tidemill.online.codec import WrongValueError
from tidemill.online.decoding import PACKED, FieldType, WrongValues
from tidemill.online.keys import hash_field, packed_field, time_field
from tidemill.online.packed import PackedSchema
from tidemill.online.result import RowStates, Status

_PRESENT, _OLD, _MISSING = Status.PRESENT, Status.OUTSIDE_MAX_AGE, Status.NOT_FOUND
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class ViewColumns:
    """What one projection's replies said: its features' columns in order, and the states of the rows."""

    columns: list[list[Any]]
    states: RowStates


class ViewRead:
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
            apply_freshness(self.view, answer, at)
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


class FeastViewRead(ViewRead):
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


class PackedViewRead(ViewRead):
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


def apply_freshness(view: View, answer: ViewColumns, at: int) -> None:
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
