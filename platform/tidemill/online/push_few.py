"""A push of a few events, checked one value at a time: setting up columns would cost more than the events do.

Only the usual is taken: values of exactly the declared kind, times in UTC, nothing ahead of the push horizon. Whatever
is unusual goes the way of all others (`push_rows`), which converts, rejects and complains; both take the same alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import polars as pl

from tidemill.clock import as_utc, to_micros
from tidemill.definitions.catalog import Catalog, View
from tidemill.definitions.duration import parse_duration
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import ColumnNeeds, micros, needs_of
from tidemill.online.push_rows import needed_columns, time_fields

MOST = 32
"""Rows above which columns are the faster way."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANT = pl.Datetime("us", "UTC")
_PLAIN = {pl.String, pl.Int64, pl.Float64, pl.Boolean, _INSTANT}
_WHOLE = {ValueType.INT32: 2**31, ValueType.INT64: 2**63}
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no UTF-8 can hold
_Kind = Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class FewRows:
    """Checked rows as columns of plain values; times in int microseconds. `ignored` are columns nobody reads."""

    event: Sequence[int]
    known: Sequence[int]
    columns: Mapping[str, Sequence[Any]]
    ignored: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.event)

    def take(self, kept: Sequence[int]) -> FewRows:
        """Some of the rows."""
        return FewRows(
            event=[self.event[row] for row in kept],
            known=[self.known[row] for row in kept],
            columns={name: [values[row] for row in kept] for name, values in self.columns.items()},
            ignored=self.ignored,
        )


class FewRowsCheck:
    """What rows of one stream are to be like."""

    def __init__(self, catalog: Catalog, stream: str, kinds: Mapping[str, _Kind]) -> None:
        self._timestamp, self._known = time_fields(catalog.source(catalog.stream(stream).source))
        self._kinds = list(kinds.items())
        self._read = {self._timestamp, self._known, *kinds}

    @classmethod
    def where_it_fits(cls, catalog: Catalog, stream: str) -> FewRowsCheck | None:
        """None where a view of the stream needs more than plain numbers of its rows."""
        views = [view for view in catalog.views_of_stream(stream) if view.is_pushed]
        if catalog.source(catalog.stream(stream).source).field_mapping or not views:
            return None
        kinds: dict[str, _Kind] = {}
        for view in views:
            if not _is_plain(catalog, view):
                return None
            for name, dtype in zip(view.join_keys, catalog.key_types(view), strict=True):
                kinds[name] = _is_text if dtype is ValueType.STRING else _whole_below(_WHOLE[dtype])
            if view.event_id:
                kinds[view.event_id] = _is_text_or_none
        for needs in (needs for view in views for needs in needs_of(view) if needs.column):
            if needs.column in kinds and kinds[needs.column] is not _kind_of(needs):
                return None  # one column read in two ways
            kinds[needs.column] = _kind_of(needs)
        return cls(catalog, stream, kinds) if set(kinds) == set(needed_columns(views)) else None

    def rows(self, found: Any, at: datetime, horizon: str) -> FewRows | None:
        """The rows of a list of dicts or a frame; None where they are many, or unusual in any way."""
        columns = self._columns(found)
        if columns is None:
            return None
        size = len(next(iter(columns.values())))
        try:
            for name, is_usual in self._kinds:
                if not all(map(is_usual, columns[name])):
                    return None
            event = _instants(columns[self._timestamp])
        except KeyError:
            return None
        now = to_micros(at)
        known = event if self._known is None else self._learned(columns.get(self._known), size, now)
        if event is None or known is None:
            return None
        if max(max(event), max(known)) > now + _ahead(horizon):
            return None
        ignored = tuple(name for name in columns if name not in self._read)
        return FewRows(event=event, known=known, columns=columns, ignored=ignored)

    def _columns(self, found: Any) -> Mapping[str, Sequence[Any]] | None:
        """Values by column, as they were given."""
        if isinstance(found, pl.DataFrame):
            if not 0 < found.height <= MOST or not _PLAIN.issuperset(found.dtypes):
                return None
            return {name: column.to_list() for name, column in zip(found.columns, found.iter_columns(), strict=True)}
        if type(found) is not list or not 0 < len(found) <= MOST:
            return None
        if not all(type(row) is dict for row in found):
            return None
        first = found[0]
        if len(found) > 1 and any(row.keys() != first.keys() for row in found):
            return None
        return {name: [row[name] for row in found] for name in first}

    @staticmethod
    def _learned(given: Sequence[Any] | None, size: int, now: int) -> Sequence[int] | None:
        if given is None:
            return [now] * size
        if None not in given:
            return _instants(given)
        there = [value for value in given if value is not None]
        instants = _instants(there) if there else []
        if instants is None:
            return None
        rest = iter(instants)
        return [now if value is None else next(rest) for value in given]


@lru_cache(maxsize=16)
def _ahead(horizon: str) -> int:
    return micros(parse_duration(horizon))


def _is_plain(catalog: Catalog, view: View) -> bool:
    keys = all(dtype is ValueType.STRING or dtype in _WHOLE for dtype in catalog.key_types(view))
    return view.is_windowed and keys and not any(needs.distinct for needs in needs_of(view))


def _kind_of(needs: ColumnNeeds) -> _Kind:
    return _is_whole_or_none if needs.whole else _is_number_or_none


def _is_text(value: Any) -> bool:
    return type(value) is str and (value.isascii() or _SURROGATE.search(value) is None)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _whole_below(bound: int) -> _Kind:
    return lambda value: type(value) is int and -bound <= value < bound


def _is_whole_or_none(value: Any) -> bool:
    return value is None or (type(value) is int and -(2**63) <= value < 2**63)


def _is_number_or_none(value: Any) -> bool:
    return value is None or (type(value) is float and math.isfinite(value))


def _instants(values: Sequence[Any]) -> list[int] | None:
    """Microseconds of instants that are all texts or all times in UTC."""
    kinds = set(map(type, values))
    if kinds == {str}:
        try:
            return [to_micros(as_utc(datetime.fromisoformat(text))) for text in values]
        except (ValueError, OverflowError):
            return None
    if kinds != {datetime}:
        return None
    zones = {value.tzinfo for value in values}
    if len(zones) != 1 or (zone := zones.pop()) is None or str(zone) != "UTC":
        return None
    return [(value - _EPOCH) // _MICROSECOND for value in values]
