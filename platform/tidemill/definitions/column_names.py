"""What the columns of an answer are called, offline and online alike."""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.errors import DefinitionError


def refuse_equal_names(columns: Iterable[tuple[str, str]]) -> None:
    """Check that each column of an answer has a name of its own.

    Args:
        columns: each column's name, and the feature in it as `projection:feature`.

    Raises DefinitionError that names both features.
    """
    taken: dict[str, str] = {}
    for name, feature in columns:
        if name in taken:
            raise DefinitionError(
                f"Two columns would be named {name!r}: {taken[name]} and {feature}.",
                hint="Ask for full feature names (full_feature_names=True), or give one of the views an alias.",
            )
        taken[name] = feature
