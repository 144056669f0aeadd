"""The keys of a request's rows, as the bytes that Redis knows them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.definitions.catalog import Catalog, Projection
from tidemill.errors import InputError
from tidemill.online.keys import KeyLayout, key_layout

Row = Mapping[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class KeyColumns:
    """Which columns of a row make the key of one kind of entity."""

    layout: KeyLayout
    columns: tuple[str, ...]
    head: bytes
    tail: bytes
    entity_less: bool

    @classmethod
    def of(cls, catalog: Catalog, projection: Projection) -> KeyColumns:
        view = catalog.view(projection.view)
        layout, names = key_layout(catalog, view), dict(projection.join_key_map)
        columns = tuple(names.get(name, name) for name in view.join_keys)
        return cls(layout=layout, columns=columns, head=layout.head, tail=layout.tail, entity_less=not view.join_keys)

    def of_row(self, row: Row) -> bytes | None:
        """The changing part of one row's key; None where a key is null."""
        if not self.entity_less:
            part = self.layout.usual_part([row.get(name) for name in self.columns])
            if part is not None:
                return part
        parts, present = self.of_rows((row,))
        return parts[0] if present is None else None

    def of_rows(self, rows: Rows, *, first: int = 0) -> tuple[list[bytes], list[int] | None]:
        """The changing part of each row's key, and which rows have one (None: all of them). `first` is the number of
        the first row in what the user gave."""
        if self.entity_less:
            return self.layout.parts([[""] * len(rows)]), None  # type: ignore[return-value]
        parts = self.layout.parts([column_of(rows, name, "the key", first=first) for name in self.columns])
        if None not in parts:
            return parts, None  # type: ignore[return-value]
        present = [place for place, part in enumerate(parts) if part is not None]
        return [parts[place] for place in present], present  # type: ignore[misc]


def column_of(rows: Rows, name: str, what: str, *, first: int = 0) -> list[Any]:
    """One field of every row. Raises InputError naming the first row without it."""
    try:
        return [row[name] for row in rows]
    except KeyError:
        place = next(place for place, row in enumerate(rows) if name not in row)
        raise InputError(
            f"Row {first + place} lacks {what} {name!r}; it has: {', '.join(map(str, rows[place])) or 'nothing'}.",
            hint="Give it and whatever else the service asks for, or null where one is not known.",
        ) from None
