"""Tidemill: a feature-store-centred ML platform.

The number a model is trained on is the number serving would have returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.client import AsyncClient, Client
    from tidemill.definitions.declare import (
        AtLeast,
        AtMost,
        Label,
        LastPart,
        Model,
        NotWorseThanChampion,
        OnDrift,
        OnNewData,
        OnPerformance,
        OnSchedule,
        Spine,
        tags,
    )
    from tidemill.project import Project
    from tidemill.project import open_project as open  # noqa: A004 - `tidemill.open` reads like the sentence it is

_DECLARED = (
    "AtLeast",
    "AtMost",
    "Label",
    "LastPart",
    "Model",
    "NotWorseThanChampion",
    "OnDrift",
    "OnNewData",
    "OnPerformance",
    "OnSchedule",
    "Spine",
    "tags",
)

__all__ = [
    "AsyncClient",
    "AtLeast",
    "AtMost",
    "Client",
    "Label",
    "LastPart",
    "Model",
    "NotWorseThanChampion",
    "OnDrift",
    "OnNewData",
    "OnPerformance",
    "OnSchedule",
    "Project",
    "Spine",
    "open",
    "tags",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import tidemill` costs nothing."""
    if name in _DECLARED:
        from tidemill.definitions import declare

        return getattr(declare, name)
    if name == "open":
        from tidemill.project import open_project

        return open_project
    if name in ("AsyncClient", "Client"):
        from tidemill import client

        return getattr(client, name)
    if name == "Project":
        from tidemill.project import Project

        return Project
    raise AttributeError(f"module 'tidemill' has no attribute {name!r}")
