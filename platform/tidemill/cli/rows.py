"""Rows given on the command line as `name=value` pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tidemill.errors import InputError

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Catalog


def typed_row(catalog: Catalog, pairs: Sequence[str]) -> dict[str, Any]:
    """A row of keys and request values. What the catalog calls a string stays text; anything else is read as JSON
    where it is JSON (numbers, true, null) and stays text where it is not (instants).

    Raises InputError for a pair without `=`.
    """
    strings = _strings(catalog)
    row: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise InputError(f"{pair!r} is not name=value.", hint="Write e.g. --entity origin=JFK.")
        row[name] = text if name in strings else _read(text)
    return row


def _strings(catalog: Catalog) -> set[str]:
    from tidemill.definitions.types import ValueType

    keys = {item.join_key for item in catalog.entities if item.dtype is ValueType.STRING}
    requested = (field for view in catalog.on_demand_views for field in view.request)
    return keys | {field.name for field in requested if field.dtype is ValueType.STRING}


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
