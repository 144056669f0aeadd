"""What the catalog's nouns choose from: window functions, what becomes of stale values and of missed ticks."""

from __future__ import annotations

from enum import StrEnum


class AggregationFunction(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    VAR = "var"
    STD = "std"
    FIRST = "first"
    LAST = "last"
    COUNT_DISTINCT = "count_distinct"


class StalePolicy(StrEnum):
    """What a read does with a value older than the view's freshness objective."""

    SERVE = "serve"
    NULL = "null"
    REFUSE = "refuse"


class CatchUp(StrEnum):
    """What is done about ticks that were missed while nothing ran."""

    LATEST = "latest"
    """One run, up to the newest of them."""
    ALL = "all"
    """One run for each of them, in order."""
    SKIP = "skip"
    """Nothing; the next tick does their work as well."""
