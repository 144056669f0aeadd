"""What a feature looked like in the training data, in a form that later data can be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

_BINS = 10
_FEW = 12
_MOST_CATEGORIES = 50
_OTHER = "(other)"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The distribution of one column: shares of its bins or categories, which with `null_share` sum to 1.

    Numbers: bin i holds `edges[i-1] < value <= edges[i]`, the first and last bin being open, so there is one share
    more than there are edges. Strings and booleans: a share for each of `categories`, then one for all others.
    NaN counts as missing. `mean` and `std` are None for strings and for columns without a value.
    """

    name: str
    rows: int
    null_share: float
    shares: tuple[float, ...]
    edges: tuple[float, ...] = ()
    categorical: bool = False
    categories: tuple[str, ...] = ()
    mean: float | None = None
    std: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each share, for people."""
        if self.categorical:
            return (*self.categories, _OTHER)
        if not self.edges:
            return ("any",)
        between = [f"{low:g} to {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return (f"up to {self.edges[0]:g}", *between, f"above {self.edges[-1]:g}")

    def shares_of(self, column: pl.Series) -> tuple[np.ndarray, float]:
        """Shares of another column in the same bins, and its share of missing values; zeros for an empty column."""
        counts = self._count(column)
        rows = max(len(column), 1)
        return counts / rows, (len(column) - int(counts.sum())) / rows

    def _count(self, column: pl.Series) -> np.ndarray:
        if not self.categorical:
            values = _finite(column)
            return np.bincount(np.searchsorted(self.edges, values, side="left"), minlength=len(self.edges) + 1)
        codes = {category: code for code, category in enumerate(self.categories)}
        text = _text(column).drop_nulls()
        places = text.replace_strict(codes, default=len(codes), return_dtype=pl.Int64).to_numpy()
        return np.bincount(places, minlength=len(codes) + 1)


def describe(column: pl.Series) -> Baseline:
    """The baseline of a column of numbers, booleans or strings."""
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical):
        return _describe_categories(column)
    values = _finite(column)
    found = Baseline(
        name=column.name,
        rows=len(column),
        null_share=0.0,
        shares=(),
        edges=_edges(values),
        mean=float(values.mean()) if len(values) else None,
        std=float(values.std()) if len(values) else None,
    )
    return _with_shares(found, column)


def describe_all(frame: pl.DataFrame) -> tuple[Baseline, ...]:
    return tuple(describe(column) for column in frame.iter_columns())


def baseline_from(plain: Mapping[str, object]) -> Baseline:
    """A baseline from its JSON form."""
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Baseline(**lists)  # type: ignore[arg-type]


def _describe_categories(column: pl.Series) -> Baseline:
    text = _text(column)
    counts = text.drop_nulls().value_counts(sort=False).sort(["count", text.name], descending=[True, False])
    frequent = tuple(counts.get_column(text.name).head(_MOST_CATEGORIES).to_list())
    found = Baseline(
        name=column.name, rows=len(column), null_share=0.0, shares=(), categorical=True, categories=frequent
    )
    return _with_shares(found, column)


def _with_shares(found: Baseline, column: pl.Series) -> Baseline:
    shares, null_share = found.shares_of(column)
    return Baseline(**(vars(found) | {"shares": tuple(map(float, shares)), "null_share": null_share}))


def _edges(values: np.ndarray) -> tuple[float, ...]:
    """Upper bin edges: each value but the greatest where there are few, else deciles (fewer where values repeat)."""
    if not len(values):
        return ()
    distinct = np.unique(values[: 50 * _FEW])
    if len(distinct) <= _FEW:
        distinct = np.unique(values)
    if len(distinct) <= _FEW:
        return tuple(map(float, distinct[:-1]))
    deciles = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower")
    return tuple(map(float, np.unique(deciles)))


def _finite(column: pl.Series) -> np.ndarray:
    values = column.cast(pl.Float64).to_numpy()
    return values[~np.isnan(values)]


def _text(column: pl.Series) -> pl.Series:
    return column.cast(pl.String)
