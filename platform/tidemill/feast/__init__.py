"""The one package that imports Feast: definitions compiled to a catalog, and the plug-ins that Feast loads."""

from __future__ import annotations

import os
import sys
from typing import Any

_METRICS_FOLDERS = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
# What users write in definitions; the arguments of these stay checked as Feast checks them.
_CHECKED = {"Aggregation", "Entity", "FeatureService", "FeatureView", "Field", "FileSource", "PushSource"}


def _import_feast() -> None:
    """Import Feast without what it does to the rest of the process.

    It rewrites the code of classes that no definition calls, which takes half of its import; and it has the Prometheus
    client keep every number of this process, and of those started from it, in files they share (its own server forks).
    """
    import prometheus_client  # noqa: F401 - chooses where numbers are kept when it is first imported
    import typeguard

    folders = {name: os.environ.get(name) for name in _METRICS_FOLDERS}

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
        for name, folder in folders.items():
            if folder is None:
                os.environ.pop(name, None)


if "feast" not in sys.modules:
    _import_feast()
