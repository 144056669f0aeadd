"""What a read answers: columns of values, and for each value how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.series import declared_series
from tidemill.definitions.types import ValueType


class Status(IntEnum):
    """How good a value is. The numbers are those of Feast's `FieldStatus`."""

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    OUTSIDE_MAX_AGE = 4


_PRESENT, _NULL = Status.PRESENT, Status.NULL_VALUE


Column = list[Any] | np.ndarray
"""Values of one feature: plain Python ones, or an array of numbers where whoever asked takes those."""


@dataclass(slots=True)
class RowStates:
    """What one view's values have in common, row by row. `base` is None where every row is there and young enough;
    `stale` is None where none is; `complete` is True where it is known already that no value is null either."""

    event_times: Sequence[int | None]
    base: list[Status] | None = None
    stale: list[bool] | None = None
    complete: bool = False


class OnlineResult:
    """Features for some rows, by column. The lists may be shared between columns: read them, do not change them.

    Attributes:
        names: the columns in the order they were asked for.
        values: column name to plain Python values, None for null; in the order of `names`. Where the read was asked for
            `arrays`, a column of numbers without null may be an array of float64 or int64.
        dtypes: the declared types.
        at: the instant of the read, microseconds since 1970 UTC; ttl and freshness were counted from it.
    """

    __slots__ = (
        "_event_times", "_moments", "_stale", "_states", "_statuses", "_views", "at", "dtypes", "names", "values",
    )  # fmt: skip

    def __init__(
        self,
        *,
        names: tuple[str, ...],
        values: Mapping[str, list[Any]],
        dtypes: Mapping[str, ValueType],
        at: int,
        states: Sequence[RowStates] | None = None,
        moments: Sequence[int | None] = (),
        views: Sequence[int] = (),
        statuses: Mapping[str, Sequence[Status]] | None = None,
        event_times: Mapping[str, Sequence[int | None]] | None = None,
        stale: Mapping[str, Sequence[bool]] | None = None,
    ) -> None:
        """What says how good the values are comes by column, or as the states of the rows of each view, with the view
        of each column in `views`; then it is worked out only when it is asked for. `moments` stand for the states where
        there is one row, young enough and fresh in every view: its event time in each."""
        self.names, self.values, self.dtypes, self.at = names, values, dtypes, at
        self._states, self._moments, self._views = states, moments, views
        self._statuses, self._event_times, self._stale = statuses, event_times, stale

    @property
    def rows(self) -> int:
        return len(self.values[self.names[0]]) if self.names else 0

    @property
    def statuses(self) -> Mapping[str, Sequence[Status]]:
        """One `Status` for each value."""
        if self._statuses is None:
            present = [_PRESENT] * self.rows
            self._statuses = {
                name: present
                if state.complete
                else _of_values(self.values[name], present if state.base is None else state.base)
                for name, state in self._of_columns()
            }
        return self._statuses

    @property
    def event_times(self) -> Mapping[str, Sequence[int | None]]:
        """When the fact behind each value happened, microseconds since 1970 UTC; None where there is none."""
        if self._event_times is None:
            self._event_times = {name: state.event_times for name, state in self._of_columns()}
        return self._event_times

    @property
    def stale(self) -> Mapping[str, Sequence[bool]]:
        """True where the value is older than its view's freshness objective."""
        if self._stale is None:
            fresh = [False] * self.rows
            self._stale = {name: state.stale or fresh for name, state in self._of_columns()}
        return self._stale

    @property
    def all_present(self) -> bool:
        """Whether every value is there, young enough and not null: how most answers are, and cheaper to ask for than
        all statuses."""
        if self._statuses is not None or any(state.base is not None for state in self._of_views()):
            return all(column.count(_PRESENT) == len(column) for column in self.statuses.values())
        return all(state.complete for state in self._of_views()) or not any(map(_has_null, self.values.values()))

    @property
    def any_stale(self) -> bool:
        """Whether any value is older than its view's freshness objective."""
        if self._stale is not None:
            return any(True in flags for flags in self._stale.values())
        return any(state.stale is not None for state in self._of_views())

    def to_dict(self) -> dict[str, list[Any]]:
        """Column name to values, in the order asked for."""
        return dict(self.values)

    def frame(self) -> pl.DataFrame:
        """The values as a frame of the declared types: an int64 with missing values is an int64 with nulls."""
        return pl.DataFrame([self._column(name) for name in self.names])

    def _of_columns(self) -> Iterator[tuple[str, RowStates]]:
        states = self._of_views()
        return ((name, states[view]) for name, view in zip(self.names, self._views, strict=True))

    def _of_views(self) -> Sequence[RowStates]:
        if self._states is None:
            self._states = [RowStates((moment,)) for moment in self._moments]
        return self._states

    def _column(self, name: str) -> pl.Series:
        values: list[Any] = self.values[name]
        if any(isinstance(value, set) for value in values):
            values = [None if value is None else sorted(value) for value in values]
        if self.dtypes[name] is ValueType.DECIMAL:
            return pl.Series(name, values)  # as numbers, of as many places as the longest has
        return declared_series(name, values, self.dtypes[name])


def listed(column: Column) -> list[Any]:
    """The column as plain values."""
    return column.tolist() if isinstance(column, np.ndarray) else column


def _has_null(column: Sequence[Any]) -> bool:
    """An array has none, and would compare each of its numbers."""
    return not isinstance(column, np.ndarray) and None in column


def _of_values(values: Sequence[Any], base: list[Status]) -> Sequence[Status]:
    """A row's state for each of its values; a null in a row that is there is a null value."""
    if not _has_null(values):
        return base
    return [_NULL if value is None and state is _PRESENT else state for value, state in zip(values, base, strict=True)]
