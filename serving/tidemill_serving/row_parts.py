"""The rows of a request taken apart by column for the prediction log: keys, request fields, names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemill_serving.values import writer_of

if TYPE_CHECKING:
    from tidemill_serving.rows import Row, RowField

Prepare = Callable[[Sequence[Any]], Sequence[Any]]
"""Makes a column of values ready for JSON."""


@dataclass(frozen=True, kw_only=True)
class RowParts:
    """Compiled from a schema once. `keys` and `request` say of each field what prepares it, if anything has to."""

    keys: Mapping[str, Prepare | None]
    request: Mapping[str, Prepare | None]
    id_column: str | None

    @classmethod
    def of(cls, fields: Iterable[RowField], id_column: str | None) -> RowParts:
        prepared = [(field, writer_of(field.dtype)) for field in fields]
        return cls(
            keys={field.name: prepare for field, prepare in prepared if field.is_key},
            request={field.name: prepare for field, prepare in prepared if not field.is_key},
            id_column=id_column,
        )

    def names_of(self, rows: Sequence[Row]) -> list[str | None]:
        """What the rows were called by who asked, None where they were not."""
        if self.id_column is None:
            return [None] * len(rows)
        return [_text(row.get(self.id_column)) for row in rows]

    def keys_of(self, rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
        return {name: _column(rows, name, prepare) for name, prepare in self.keys.items()}

    def request_of(self, rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
        return {name: _column(rows, name, prepare) for name, prepare in self.request.items()}


def _column(rows: Sequence[Row], name: str, prepare: Prepare | None) -> Sequence[Any]:
    column = [row[name] for row in rows]
    return column if prepare is None else prepare(column)


def _text(name: Any) -> str | None:
    return name if name is None or type(name) is str else str(name)
