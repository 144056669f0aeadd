"""The rows of a request, checked against what a feature service needs: its join keys and its request fields.

A schema is compiled once from the catalog. Checking goes column by column, so that a correct request costs a few
set operations, and only an incorrect one is looked at value by value to say what is wrong with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tidemill.definitions.catalog import Catalog, OnDemandView, Projection, Service, View
from tidemill.definitions.types import ValueType
from tidemill_serving.exchange import json_kind
from tidemill_serving.problems import Fault, MalformedBodyError, RejectedRowsError
from tidemill_serving.row_parts import RowParts
from tidemill_serving.values import EXACT, RANGES, WrongTypeError, expected, reader_of

_MOST_FAULTS = 20
_SHOWN = 40

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RowField:
    """A column that every row must have. A key that is null matches nothing; a request field may be null."""

    name: str
    dtype: ValueType
    is_key: bool
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class RowSchema:
    """What a row looks like: `fields`, all required, and an optional column that names the row."""

    fields: tuple[RowField, ...]
    id_column: str | None = None

    def check(self, rows: Any, *, limit: int) -> list[Row]:
        """The rows with every value of its declared type. Raises RejectedRowsError naming each fault (the first 20)."""
        if type(rows) is not list:
            raise MalformedBodyError(f"`rows` is {_article(rows)}; an array of objects was expected.")
        if not rows:
            raise RejectedRowsError("`rows` is empty; at least one row was expected.")
        if len(rows) > limit:
            raise RejectedRowsError(
                f"{len(rows):,} rows were asked for; at most {limit:,} are answered in one request.",
                hint="Ask in several requests, or raise `max_rows`.",
            )
        try:
            fitting = self._fits_as_it_is(rows)
        except (KeyError, TypeError):  # a missing field, or a row that is no object
            fitting = False
        return rows if fitting else self._check_each(rows)

    def _fits_as_it_is(self, rows: list[Any]) -> bool:
        width = len(self.fields)
        for field in self.fields:
            exact = EXACT.get(field.dtype)
            column = [row[field.name] for row in rows]
            if exact is None or not exact.issuperset(map(type, column)):
                return False
            if field.dtype in RANGES and column and not _within(RANGES[field.dtype], column):
                return False
        if self.id_column is None:
            return all(len(row) == width for row in rows)
        return all(len(row) == width or (len(row) == width + 1 and self._names_its_row(row)) for row in rows)

    def _names_its_row(self, row: Row) -> bool:
        return self._own_id_column and self.id_column is not None and type(row.get(self.id_column)) is str

    @cached_property
    def parts(self) -> RowParts:
        """What a checked row is taken apart into for the prediction log."""
        return RowParts.of(self.fields, self.id_column)

    @cached_property
    def _own_id_column(self) -> bool:
        return all(field.name != self.id_column for field in self.fields)

    def _check_each(self, rows: list[Any]) -> list[Row]:
        faults: list[Fault] = []
        checked = [self._check_row(row, f"rows[{index}]", faults) for index, row in enumerate(rows)]
        if faults:
            first = faults[0]
            more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
            raise RejectedRowsError(
                f"{first.where}: found {first.found}, expected {first.expected}{more}.",
                faults=faults[:_MOST_FAULTS],
                hint=f"A row holds: {', '.join(f'{field.name} ({expected(field.dtype)})' for field in self.fields)}.",
            )
        return checked

    def _check_row(self, row: Any, where: str, faults: list[Fault]) -> Row:
        if type(row) is not dict:
            faults.append(Fault(where=where, found=_article(row), expected="an object with the row's fields"))
            return {}
        checked = {field.name: self._check_field(row, field, where, faults) for field in self.fields}
        for name in row.keys() - self._known:
            advice = self._advice(name) if len(faults) < _MOST_FAULTS else ""  # the others are only counted
            faults.append(Fault(where=f"{where}.{name}", found="an unknown field", expected=advice))
        if self.id_column is not None and self.id_column in row and self.id_column not in checked:
            checked[self.id_column] = _check_id(row[self.id_column], f"{where}.{self.id_column}", faults)
        return checked

    def _advice(self, unknown: str) -> str:
        close = difflib.get_close_matches(unknown, self._known, n=1)
        return f"did you mean {close[0]!r}?" if close else f"only: {', '.join(sorted(self._known))}"

    def _check_field(self, row: Row, field: RowField, where: str, faults: list[Fault]) -> Any:
        if field.name not in row:
            kind = "join key" if field.is_key else "request field"
            faults.append(
                Fault(where=f"{where}.{field.name}", found="nothing", expected=f"{kind}: {expected(field.dtype)}")
            )
            return None
        value = row[field.name]
        if value is None:
            return None
        try:
            return self._readers[field.name](value)
        except WrongTypeError:
            faults.append(Fault(where=f"{where}.{field.name}", found=_shown(value), expected=expected(field.dtype)))
            return None

    @cached_property
    def _readers(self) -> dict[str, Any]:
        return {field.name: reader_of(field.dtype) for field in self.fields}

    @cached_property
    def _known(self) -> frozenset[str]:
        names = {field.name for field in self.fields}
        return frozenset(names if self.id_column is None else names | {self.id_column})


def row_schema(catalog: Catalog, service: Service, *, id_column: str | None = None) -> RowSchema:
    """What a row must hold so that the service's features can be read, from the catalog."""
    return RowSchema(fields=_fields(catalog, service.projections), id_column=id_column)


def row_schema_of_features(catalog: Catalog, references: Sequence[str]) -> RowSchema:
    """The same for `view:feature` references. Raises NotDefinedError or MalformedBodyError for what is not one."""
    projections = []
    for reference in references:
        view, colon, feature = reference.partition(":")
        if not colon:
            raise MalformedBodyError(f"{reference!r} names no feature; write it as `view:feature`.")
        (catalog.on_demand_view(view) if catalog.is_on_demand(view) else catalog.view(view)).feature(feature)
        projections.append(Projection(view=view, features=(feature,)))
    return RowSchema(fields=_fields(catalog, projections))


def _fields(catalog: Catalog, projections: Iterable[Projection]) -> tuple[RowField, ...]:
    """Keys first, in the order of the projections; a name that several views share is one field."""
    found: dict[str, RowField] = {}
    request: dict[str, RowField] = {}
    for projection in projections:
        if not catalog.is_on_demand(projection.view):
            _add_keys(found, catalog, catalog.view(projection.view), dict(projection.join_key_map))
            continue
        view = catalog.on_demand_view(projection.view)
        for source in view.inputs:
            _add_keys(found, catalog, catalog.view(source.view), {})
        _add_request_fields(request, view)
    return (*found.values(), *(field for name, field in request.items() if name not in found))


def _add_keys(found: dict[str, RowField], catalog: Catalog, view: View, renamed: Mapping[str, str]) -> None:
    for entity, key, dtype in zip(view.entities, view.join_keys, catalog.key_types(view), strict=True):
        name = renamed.get(key, key)
        about = catalog.entity(entity).description
        found.setdefault(name, RowField(name=name, dtype=dtype, is_key=True, description=about))


def _add_request_fields(request: dict[str, RowField], view: OnDemandView) -> None:
    for field in view.request:
        added = RowField(name=field.name, dtype=field.dtype, is_key=False, description=field.description)
        request.setdefault(field.name, added)


def _within(limits: tuple[int, int], column: list[int]) -> bool:
    return limits[0] <= min(column) and max(column) <= limits[1]


def _check_id(value: Any, where: str, faults: list[Fault]) -> str | None:
    if value is None or type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    faults.append(Fault(where=where, found=_shown(value), expected="a string that names the row"))
    return None


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    kind = json_kind(value)
    if kind in ("object", "array", "null"):
        return _article(value)
    return f"the {kind} {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


def _article(value: Any) -> str:
    kind = json_kind(value)
    return kind if kind == "null" else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
