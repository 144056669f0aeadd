"""The HTTP API: features and predictions at the speed of the online store.

A process that serves imports neither Feast nor MLflow nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_serving.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that looking at this package costs nothing."""
    if name == "create_app":
        from tidemill_serving.app import create_app

        return create_app
    raise AttributeError(f"module 'tidemill_serving' has no attribute {name!r}")
