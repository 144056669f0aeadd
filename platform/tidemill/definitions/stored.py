"""What a view's stored values depend on: definitions that agree in it may go on with each other's data."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tidemill.definitions.catalog import Catalog, View

# What says how a view is kept or described, but not what its stored values are.
_KEEPING = {
    "ttl": timedelta(0),
    "schedule": None,
    "freshness": None,
    "description": "",
    "owner": "",
    "tags": (),
}


def stored_by(catalog: Catalog, view: View) -> tuple[Any, ...]:
    """All that decides what values of a view lie in the online store, and under which keys."""
    bare = replace(view, **_KEEPING, features=tuple(replace(feature, description="") for feature in view.features))
    source = replace(catalog.source(view.source), schedule=None, description="")
    return bare, source, catalog.key_types(view)


def store_alike(one: Catalog, other: Catalog, view: str) -> bool:
    """Whether two catalogs both have a view, and store the same of it."""
    if not (has_view(one, view) and has_view(other, view)):
        return False
    return stored_by(one, one.view(view)) == stored_by(other, other.view(view))


def has_view(catalog: Catalog, name: str) -> bool:
    return any(view.name == name for view in catalog.views)
