"""What one projection takes from one view: its columns, and how good each row is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tidemill.definitions.catalog import Projection, StalePolicy, View
from tidemill.definitions.windows import of_nothing
from tidemill.errors import StaleFeaturesError
from tidemill.online.result import Column, RowStates, Status, listed

_PRESENT, _OLD, _MISSING = Status.PRESENT, Status.OUTSIDE_MAX_AGE, Status.NOT_FOUND
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class ViewColumns:
    """What one projection's replies said: its features' columns in order, and the states of the rows."""

    columns: list[Any]
    states: RowStates


class ViewRead:
    """The features taken from one view by one projection. `start` is where its columns begin among those of its group:
    its features', then that of the event time."""

    def __init__(self, view: View, projection: Projection) -> None:
        self.name, self.view, self.start = projection.name, view, 0
        self.features = projection.features
        self.ttl = 0 if view.is_windowed else view.ttl // _MICROSECOND
        nothing = {item.name: of_nothing(item.function, view.feature(item.name).dtype) for item in view.aggregations}
        self.nothing = [nothing.get(name) for name in self.features]

    @property
    def oldest_allowed(self) -> int | None:
        """Microseconds up to which a value is neither too old nor stale; None for ever."""
        ages = [self.ttl] if self.ttl else []
        if self.view.freshness is not None:
            ages.append(self.view.freshness.max_age // _MICROSECOND)
        return min(ages, default=None)

    @property
    def places(self) -> list[int]:
        """Where the wanted features lie among the view's."""
        order = [feature.name for feature in self.view.features]
        return [order.index(name) for name in self.features]

    def decode(self, columns: Sequence[Any], at: int) -> ViewColumns:
        end = self.start + len(self.features)
        event_times, found = columns[end], list(columns[self.start : end])
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


def _only_present(column: Column, base: list[Status], nothing: Any) -> list[Any]:
    """Values of rows that are there and young enough; `nothing` is what an entity never written has."""
    return [
        value if state is _PRESENT else nothing if state is _MISSING else None
        for value, state in zip(listed(column), base, strict=True)
    ]


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
            [None if old else value for value, old in zip(listed(column), stale, strict=True)]
            for column in answer.columns
        ]
