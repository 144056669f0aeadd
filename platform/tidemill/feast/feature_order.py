"""One order of features in every process.

Feast gathers the features it needs of each view in sets, whose order is another in every process. What a retrieval
needs only to compute on-demand features comes back too, after what was asked for: with our plug-ins in the order of
its view.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from feast import utils

_MARK = "_changed_by_tidemill"


def keep_features_in_order() -> None:
    """Let Feast name the features of each view in the order in which the view declares them. Done once a process."""
    original = utils._group_feature_refs
    if hasattr(original, _MARK):
        return

    @wraps(original)
    def group(*args: Any, **settings: Any) -> Any:
        views, on_demand = original(*args, **settings)
        return [(view, _as_declared(view, names)) for view, names in views], on_demand

    setattr(group, _MARK, True)
    utils._group_feature_refs = group


def _as_declared(view: Any, names: list[str]) -> list[str]:
    places = {field.name: place for place, field in enumerate(view.projection.features)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
