"""What a read answers: columns of values, and for each value how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import polars as pl

from tidemill.definitions.types import ValueType


class Status(IntEnum):
    """How good a value is. The numbers are those of Feast's `FieldStatus`."""

    NOT_FOUND = 1
    PRESENT = 2
    NULL_VALUE = 3
    OUTSIDE_MAX_AGE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineResult:
    """Features for some rows, by column. The lists may be shared between columns: read them, do not change them.

    Attributes:
        names: the columns in the order they were asked for.
        values: plain Python values, None for null.
        statuses: one `Status` for each value.
        event_times: when the fact behind each value happened, microseconds since 1970 UTC; None where there is none.
        stale: True where the value is older than its view's freshness objective.
        dtypes: the declared types.
        at: the instant of the read, microseconds since 1970 UTC; ttl and freshness were counted from it.
    """

    names: tuple[str, ...]
    values: Mapping[str, list[Any]]
    statuses: Mapping[str, Sequence[Status]]
    event_times: Mapping[str, Sequence[int | None]]
    stale: Mapping[str, Sequence[bool]]
    dtypes: Mapping[str, ValueType]
    at: int

    @property
    def rows(self) -> int:
        return len(self.values[self.names[0]]) if self.names else 0

    def to_dict(self) -> dict[str, list[Any]]:
        """Column name to values, in the order asked for."""
        return {name: list(self.values[name]) for name in self.names}

    def frame(self) -> pl.DataFrame:
        """The values as a frame of the declared types: an int64 with missing values is an int64 with nulls."""
        return pl.DataFrame([self._column(name) for name in self.names])

    def _column(self, name: str) -> pl.Series:
        values: list[Any] = self.values[name]
        if any(isinstance(value, set) for value in values):
            values = [None if value is None else sorted(value) for value in values]
        return pl.Series(name, values, dtype=self.dtypes[name].polars())
