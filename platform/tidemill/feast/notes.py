"""What is worth saying of definitions that are right, but cost more than they need to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from feast.repo_contents import RepoContents


def notes_on(contents: RepoContents, root: Path) -> tuple[str, ...]:
    """A sentence for each module whose on-demand functions take Feast along wherever they are evaluated."""
    heavy: dict[str, list[str]] = {}
    for view in contents.on_demand_feature_views:
        function = getattr(view.feature_transformation, "udf", None)
        if function is not None and any(map(_is_of_feast, function.__globals__.values())):
            file = Path(function.__code__.co_filename).resolve().relative_to(root.resolve())
            heavy.setdefault(str(file), []).append(view.name)
    return tuple(
        f"{file} imports Feast, and so will every server that computes {', '.join(sorted(names))}: it starts some "
        "seconds later and takes more memory. Define it in a file that does not, and hand it to the decorator."
        for file, names in sorted(heavy.items())
    )


def _is_of_feast(value: Any) -> bool:
    names = value.__name__ if isinstance(value, ModuleType) else type(value).__module__, _module(value)
    return any(name.split(".")[0] == "feast" for name in names)


def _module(value: Callable[..., Any] | Any) -> str:
    found = getattr(value, "__module__", None)
    return found if isinstance(found, str) else ""
