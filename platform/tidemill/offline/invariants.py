"""Promises checked on every retrieval. What breaks one is our defect and is never returned as data."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tidemill.definitions.catalog import Feature
from tidemill.errors import InvariantError
from tidemill.offline.lookup import Winners


def check_winners(winners: Winners, rows: int, *, has_known: bool) -> None:
    """One answer for each row; no winner from after its cut-off, known after it, or older than the ttl lets through."""
    labels, answers = winners.labels, len(winners.position)
    if answers != len(labels) or answers > rows or (winners.order is None and answers != rows):
        raise InvariantError(f"{answers} answers were found for {rows} rows of the spine.")
    held = winners.position >= 0
    if (held & (winners.event > labels.cutoff)).any():
        raise InvariantError("A value was chosen whose event lies after the row's cut-off.")
    if has_known and (held & (winners.known > labels.known_cutoff)).any():
        raise InvariantError("A value was chosen that became known after the row's cut-off.")
    if labels.lifetime is not None and (held & (winners.event < labels.lifetime.floor())).any():
        raise InvariantError("A value was chosen that is older than its view's ttl.")


def check_types(frame: pl.DataFrame, features: Sequence[Feature]) -> None:
    """Features in the order asked for, each of its declared type."""
    if frame.columns != [feature.name for feature in features]:
        raise InvariantError(f"Features came back as {frame.columns}.")
    for feature in features:
        declared = feature.dtype.polars()
        if declared is not None and frame.schema[feature.name] != declared:
            raise InvariantError(f"Feature {feature.name!r} is {frame.schema[feature.name]}, declared {declared}.")
