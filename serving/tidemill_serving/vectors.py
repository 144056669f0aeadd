"""Feature vectors on their way out: columns made ready for JSON, statuses as shared fragments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from tidemill.definitions.catalog import Catalog, Projection
from tidemill.definitions.types import ValueType
from tidemill.online.result import Status
from tidemill_serving.values import are_finite, writer_of

if TYPE_CHECKING:
    from tidemill.online.result import OnlineResult

_PRESENT = "PRESENT"
_MOST_PATTERNS = 4_096
_MOST_ROWS_KEPT = 200
# Indexed by the status itself: a look-up by an enum's name or hash runs Python code, and there are thousands.
_NAMES = tuple(Status(number).name if number in set(Status) else "" for number in range(max(Status) + 1))

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class VectorWriter:
    """Compiled from the catalog for one service or list of features: which columns need work before orjson."""

    types: Mapping[str, ValueType]
    _writers: Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]] = field(repr=False)
    _numbers: tuple[str, ...] = field(repr=False)
    _all_present: dict[int, orjson.Fragment] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, types: Mapping[str, ValueType]) -> VectorWriter:
        writers = {name: writer_of(dtype) for name, dtype in types.items()}
        return cls(
            types=types,
            _writers={name: writer for name, writer in writers.items() if writer is not None},
            _numbers=tuple(name for name, dtype in types.items() if dtype in (ValueType.DOUBLE, ValueType.FLOAT)),
        )

    def columns(self, result: OnlineResult) -> dict[str, Sequence[Any]]:
        """The result's values by feature, each a list or an array that orjson writes as the API promises."""
        written: dict[str, Sequence[Any]] = dict(result.values)
        ready = self._numbers if are_finite([written[name] for name in self._numbers]) else ()
        if len(ready) < len(self._writers):
            for name, write in self._writers.items():
                written[name] = write(written[name])
        return written

    def all_present(self, rows: int) -> orjson.Fragment:
        """The statuses of so many rows in which all is well, which is how most answers are: built once."""
        found = self._all_present.get(rows)
        if found is None:
            found = orjson.Fragment(orjson.dumps(dict.fromkeys(self.types, [_PRESENT] * rows)))
            if rows <= _MOST_ROWS_KEPT:
                self._all_present[rows] = found
        return found


def service_types(catalog: Catalog, service: str) -> dict[str, ValueType]:
    """The service's features in their order, with their types."""
    return _types(catalog, catalog.service(service).projections)


def reference_types(catalog: Catalog, references: Sequence[str]) -> dict[str, ValueType]:
    """The same for `view:feature` references."""
    pairs = (reference.partition(":") for reference in references)
    return _types(catalog, [Projection(view=view, features=(feature,)) for view, _, feature in pairs])


def _types(catalog: Catalog, projections: Sequence[Projection]) -> dict[str, ValueType]:
    return {name: dtype for _, name, dtype in projected(catalog, projections)}


def projected(catalog: Catalog, projections: Sequence[Projection]) -> Iterator[tuple[Projection, str, ValueType]]:
    """Each feature of each projection, with its type."""
    for projection in projections:
        on_demand = catalog.is_on_demand(projection.view)
        view = catalog.on_demand_view(projection.view) if on_demand else catalog.view(projection.view)
        for name in projection.features:
            yield projection, name, view.feature(name).dtype


def status_names(result: OnlineResult) -> dict[str, list[str]]:
    """Each feature's statuses as their names. Features of one view often share a column, and then share it here too."""
    shared: dict[int, list[str]] = {}
    names = {}
    for feature, column in result.statuses.items():
        found = shared.get(id(column))
        if found is None:
            found = shared[id(column)] = [_NAMES[status] for status in column]
        names[feature] = found
    return names


def status_columns(statuses: Mapping[str, Sequence[str]], part: slice) -> dict[str, Any]:
    """The statuses of some rows as JSON, each column that is shared encoded once."""
    shared: dict[int, Any] = {}
    columns = {}
    for feature, column in statuses.items():
        found = shared.get(id(column))
        if found is None:
            found = shared[id(column)] = orjson.Fragment(orjson.dumps(column[part]))
        columns[feature] = found
    return columns


class StatusRows:
    """The statuses of a row as a JSON object. Few patterns occur, so that most are looked up."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}

    def all_present(self, names: tuple[str, ...], rows: int) -> list[str]:
        """The same for rows in which all is well."""
        return [self._text(names, (_PRESENT,) * len(names))] * rows

    def texts(self, statuses: Mapping[str, Sequence[str]]) -> list[str]:
        """One JSON object, as text, for each row."""
        names = tuple(statuses)
        return [self._text(names, row) for row in zip(*statuses.values(), strict=True)]

    def _text(self, names: tuple[str, ...], row: tuple[str, ...]) -> str:
        text = self._known.get(row)
        if text is None:
            if len(self._known) >= _MOST_PATTERNS:
                self._known.clear()
            text = orjson.dumps(dict(zip(names, row, strict=True))).decode()
            self._known[row] = text
        return text


def stale_columns(result: OnlineResult) -> dict[str, Sequence[bool]]:
    """The features of which some value is older than its freshness objective; mostly none."""
    if not result.any_stale:
        return {}
    return {name: flags for name, flags in result.stale.items() if True in flags}


def stale_rows(result: OnlineResult) -> list[list[str]]:
    """For each row the features whose value is older than its freshness objective."""
    found: list[list[str]] = [[] for _ in range(result.rows)]
    for name, flags in stale_columns(result).items():
        for row, flag in zip(found, flags, strict=True):
            if flag:
                row.append(name)
    return found
