"""The windows over which delays are summed up, and how their features are named."""

from datetime import timedelta

from feast import Aggregation, Field
from feast.types import Float64, Int64

WINDOWS = {
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}


def over_windows(name: str, function: str, column: str) -> list[Aggregation]:
    """One aggregation for each window, named `{name}_{window}`."""
    return [
        Aggregation(column=column, function=function, time_window=window, name=f"{name}_{label}")
        for label, window in WINDOWS.items()
    ]


def fields_of(aggregations: list[Aggregation]) -> list[Field]:
    """What the aggregations produce: whole numbers for counts and sums of whole numbers, fractions for means."""
    types = {"count": Int64, "sum": Int64, "mean": Float64}
    return [Field(name=aggregation.name, dtype=types[aggregation.function]) for aggregation in aggregations]
