"""A push of a few events, checked one value at a time: setting up columns would cost more than the events do.

Only the usual is taken: values of exactly the declared kind, times in UTC, nothing ahead of the clock. Whatever
is unusual goes the way of all others (`push_rows`), which converts, rejects and complains; both take the same alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import polars as pl

from tidemill.clock import as_utc, to_micros
from tidemill.definitions.catalog import Catalog, View
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import ColumnNeeds, needs_of
from tidemill.online.push_rows import needed_columns, time_fields

MOST = 32
"""Rows above which columns are the faster way."""
_FORMS_KEPT = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANT = pl.Datetime("us", "UTC")
_PLAIN = {pl.String, pl.Int64, pl.Float64, pl.Boolean, _INSTANT}
_WHOLE = {ValueType.INT32: 2**31, ValueType.INT64: 2**63}
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no UTF-8 can hold
_Kind = Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class FewRows:
    """Checked rows: times in int microseconds, plain values in the order of `few_columns`. `ignored` nobody reads."""

    event: Sequence[int]
    known: Sequence[int]
    values: Sequence[tuple[Any, ...]]
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.event)

    def take(self, kept: Sequence[int]) -> FewRows:
        """Some of the rows, in that order."""
        if len(self) == 1:
            return self
        return FewRows(
            event=[self.event[row] for row in kept],
            known=[self.known[row] for row in kept],
            values=[self.values[row] for row in kept],
            ignored=self.ignored,
        )


def few_columns(catalog: Catalog, stream: str) -> list[str]:
    """The columns that the views of a stream read from its rows, besides times."""
    return needed_columns([view for view in catalog.views_of_stream(stream) if view.is_pushed])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """How rows with columns of certain names are read: event time, known time (if `has_known`), then the values."""

    has_known: bool
    of_dict: Callable[[Any], tuple[Any, ...]]
    of_tuple: Callable[[Any], tuple[Any, ...]]
    ignored: tuple[str, ...]


class FewRowsCheck:
    """What rows of one stream are to be like."""

    def __init__(self, catalog: Catalog, stream: str, kinds: Mapping[str, _Kind]) -> None:
        self._timestamp, self._known = time_fields(catalog.source(catalog.stream(stream).source))
        self._names = few_columns(catalog, stream)
        self._kinds = [kinds[name] for name in self._names]
        self._forms: dict[tuple[str, ...], _Form | None] = {}

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

    def rows(self, found: Any, at: datetime) -> FewRows | None:
        """The rows of a list of dicts or a frame; None where they are many, or unusual in any way."""
        read = self._read(found)
        if read is None:
            return None
        rows, form = read
        values = [row[2:] for row in rows]
        for row in values:
            for is_usual, value in zip(self._kinds, row, strict=True):
                if not is_usual(value):
                    return None
        event, now = _instants([row[0] for row in rows]), to_micros(at)
        if event is None:
            return None
        known = (
            event if self._known is None else _learned([row[1] for row in rows] if form.has_known else None, rows, now)
        )
        if known is None or max(max(event), max(known)) > now:
            return None
        return FewRows(event=event, known=known, values=values, ignored=form.ignored)

    def _read(self, found: Any) -> tuple[list[tuple[Any, ...]], _Form] | None:
        """Values row by row, as they were given."""
        if type(found) is list:
            if not 0 < len(found) <= MOST or not all(type(row) is dict for row in found):
                return None
            first = found[0]
            if len(found) > 1 and any(row.keys() != first.keys() for row in found):
                return None
            form = self._form(tuple(first))
            return None if form is None else ([form.of_dict(row) for row in found], form)
        if not isinstance(found, pl.DataFrame) or not 0 < found.height <= MOST or not _PLAIN.issuperset(found.dtypes):
            return None
        form = self._form(tuple(found.columns))
        return None if form is None else ([form.of_tuple(row) for row in found.rows()], form)

    def _form(self, names: tuple[str, ...]) -> _Form | None:
        """None where a column is missing."""
        try:
            return self._forms[names]
        except KeyError:
            if len(self._forms) >= _FORMS_KEPT:
                self._forms.clear()
            form = self._forms[names] = self._new_form(names)
            return form

    def _new_form(self, names: tuple[str, ...]) -> _Form | None:
        known = self._known if self._known in names else None
        wanted = [self._timestamp, known or self._timestamp, *self._names]
        if not set(wanted).issubset(names):
            return None
        return _Form(
            has_known=known is not None,
            of_dict=itemgetter(*wanted),
            of_tuple=itemgetter(*map(names.index, wanted)),
            ignored=tuple(name for name in names if name not in {*wanted, self._known}),
        )


def _learned(given: Sequence[Any] | None, rows: Sequence[Any], now: int) -> Sequence[int] | None:
    """Known times; the present where there is none."""
    if given is None:
        return [now] * len(rows)
    if None not in given:
        return _instants(given)
    there = [value for value in given if value is not None]
    instants = _instants(there) if there else []
    if instants is None:
        return None
    rest = iter(instants)
    return [now if value is None else next(rest) for value in given]


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
