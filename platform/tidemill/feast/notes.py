"""What is worth saying of definitions that are right: what costs more than it need to, and what is Feast's alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from feast.repo_contents import RepoContents


def notes_on(contents: RepoContents, root: Path) -> tuple[str, ...]:
    """Sentences for people."""
    return (*_functions_beside_definitions(contents, root), *_label_views(contents))


def _functions_beside_definitions(contents: RepoContents, root: Path) -> Iterator[str]:
    """On-demand functions that take Feast along wherever they are evaluated."""
    heavy: dict[str, list[str]] = {}
    for view in contents.on_demand_feature_views:
        function = getattr(view.feature_transformation, "udf", None)
        if function is not None and any(map(_is_of_feast, function.__globals__.values())):
            file = Path(function.__code__.co_filename).resolve().relative_to(root.resolve())
            heavy.setdefault(str(file), []).append(view.name)
    for file, names in sorted(heavy.items()):
        yield (
            f"{file} imports Feast, and so will every server that computes {', '.join(sorted(names))}: it starts some "
            "seconds later and takes more memory. Define it in a file that does not, and hand it to the decorator."
        )


def _label_views(contents: RepoContents) -> Iterator[str]:
    if contents.label_views:
        names = ", ".join(sorted(view.name for view in contents.label_views))
        yield (
            f"Label views are Feast's alone ({names}): its SDK writes and reads them, models here do not. Declare the "
            "label of a model with tidemill.Label over a FileSource."
        )


def _is_of_feast(value: Any) -> bool:
    names = value.__name__ if isinstance(value, ModuleType) else type(value).__module__, _module(value)
    return any(name.split(".")[0] == "feast" for name in names)


def _module(value: Callable[..., Any] | Any) -> str:
    found = getattr(value, "__module__", None)
    return found if isinstance(found, str) else ""
