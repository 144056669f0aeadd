"""The one package that imports Feast: definitions compiled to a catalog, and the plug-ins that Feast loads."""

from __future__ import annotations

import sys
from typing import Any

# What users write in definitions; the arguments of these stay checked as Feast checks them.
_CHECKED = {"Aggregation", "Entity", "FeatureService", "FeatureView", "Field", "FileSource", "PushSource"}


def _import_feast() -> None:
    """Import Feast without rewriting the code of classes that no definition calls, which takes half of its import."""
    import typeguard

    checked = typeguard.typechecked

    def sparing(target: Any = None, **settings: Any) -> Any:
        if target is None:
            return checked(**settings)
        return checked(target, **settings) if getattr(target, "__name__", None) in _CHECKED else target

    typeguard.typechecked = sparing  # pyright: ignore[reportAttributeAccessIssue] - put back below
    try:
        import feast.feature_store
        import feast.repo_operations  # noqa: F401
    finally:
        typeguard.typechecked = checked


if "feast" not in sys.modules:
    _import_feast()
