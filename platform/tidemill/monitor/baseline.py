"""What a training set looked like, small enough to travel in a model's manifest, and how another sample compares.

A baseline of one column is plain JSON:

    {"kind": "numeric", "count": n, "nulls": share, "edges": [e0, e1, ...], "shares": [...], "mean": m, "std": s}
    {"kind": "categorical", "count": n, "nulls": share, "shares": {"JFK": 0.3, ...}, "other": share}

The shares of a numeric column are those of the bins (-inf, e0], (e0, e1], ..., (last, inf); all shares, `nulls` and
`other` included, sum to 1. NaN and infinities count as
nulls, since a model is told of neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

_BINS = 10
_CATEGORIES = 50
_FEW_VALUES = 20


def baseline_of(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The baseline of every column that has one: numbers, booleans, strings and instants; lists are left out."""
    found = {name: baseline_of_column(frame[name]) for name in frame.columns}
    return {name: baseline for name, baseline in found.items() if baseline is not None}


def baseline_of_column(column: pl.Series) -> dict[str, Any] | None:
    column = _as_number(column)
    if column.dtype.is_numeric():
        return _numeric(column)
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical) or isinstance(column.dtype, pl.Enum):
        return _categorical(column)
    return None


def shares_like(baseline: Mapping[str, Any], column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The baseline's shares and those of a column in the same bins, float64; the last bin is nulls."""
    if baseline["kind"] == "numeric":
        numbers = _finite(_as_number(column))
        now = _binned(numbers.drop_nulls().to_numpy(), np.asarray(baseline["edges"], dtype=np.float64))
        then = np.asarray(baseline["shares"], dtype=np.float64)
        return np.append(then, baseline["nulls"]), np.append(now, numbers.null_count()) / max(len(column), 1)
    names = list(baseline["shares"])
    counts = dict(_texts(column).drop_nulls().value_counts().iter_rows())
    known = [counts.get(name, 0) for name in names]
    other = sum(counts.values()) - sum(known)
    now = np.array([*known, other, column.null_count()], dtype=np.float64) / max(len(column), 1)
    return np.array([*baseline["shares"].values(), baseline["other"], baseline["nulls"]], dtype=np.float64), now


def _numeric(column: pl.Series) -> dict[str, Any]:
    present = _finite(column).drop_nulls().to_numpy()
    edges = _edges(present)
    total = max(len(column), 1)
    return {
        "kind": "numeric",
        "count": len(column),
        "nulls": (len(column) - present.size) / total,
        "edges": edges.tolist(),
        "shares": (_binned(present, edges) / total).tolist(),
        "mean": float(present.mean()) if present.size else None,
        "std": float(present.std()) if present.size else None,
    }


def _as_number(column: pl.Series) -> pl.Series:
    """Dates and instants as the days or microseconds they stand for; anything else as it is."""
    return column.to_physical() if column.dtype.is_temporal() else column


def _finite(column: pl.Series) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def _edges(present: np.ndarray) -> np.ndarray:
    """Inner edges: between all values where they are few, else the deciles."""
    values = np.unique(present)
    if values.size <= _FEW_VALUES:
        return values[:-1]
    deciles = np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.unique(deciles)


def _binned(present: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, present, side="left"), minlength=edges.size + 1).astype(np.float64)


def _categorical(column: pl.Series) -> dict[str, Any]:
    total = max(len(column), 1)
    counts = _texts(column).drop_nulls().value_counts().sort(["count", column.name], descending=[True, False])
    kept = counts.head(_CATEGORIES)
    return {
        "kind": "categorical",
        "count": len(column),
        "nulls": column.null_count() / total,
        "shares": {name: count / total for name, count in kept.iter_rows()},
        "other": float(counts["count"].slice(_CATEGORIES).sum()) / total,
    }


def _texts(column: pl.Series) -> pl.Series:
    return column.cast(pl.String)
