"""What a feature looked like in the training data, in a form that later data can be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

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
    NaN counts as missing. `mean` and `std` are of finite values; None for strings and for columns without one.
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
        first, last = self.edges[0], self.edges[-1]
        begin = f"below {self.edges[1]:g}" if _is_just_below(*self.edges[:2]) else f"up to {first:g}"
        return (begin, *(_named(low, high) for low, high in pairwise(self.edges)), f"above {last:g}")

    def shares_of(self, column: pl.Series) -> tuple[np.ndarray, float]:
        """Shares of another column in the same bins, and its share of missing values; zeros for an empty column."""
        counts = self._count(column)
        rows = max(len(column), 1)
        return counts / rows, (len(column) - int(counts.sum())) / rows

    def _count(self, column: pl.Series) -> np.ndarray:
        if not self.categorical:
            values = _present(column)
            return np.bincount(np.searchsorted(self.edges, values, side="left"), minlength=len(self.edges) + 1)
        codes = {category: code for code, category in enumerate(self.categories)}
        text = _text(column).drop_nulls()
        places = text.replace_strict(codes, default=len(codes), return_dtype=pl.Int64).to_numpy()
        return np.bincount(places, minlength=len(codes) + 1)


def _named(low: float, high: float) -> str:
    return f"{high:g}" if _is_just_below(low, high) else f"{low:g} to {high:g}"


def _is_just_below(low: float, high: float | None = None) -> bool:
    """Whether no number lies between the two, as at the least of few values."""
    return high is not None and bool(np.nextafter(high, -np.inf) == low)


def describe(column: pl.Series) -> Baseline:
    """The baseline of a column of numbers, booleans or strings."""
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical):
        return _describe_categories(column)
    values = _present(column)
    values = values[np.isfinite(values)]
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
    """Upper bin edges: deciles (fewer where values repeat); where there are few values a bin for each of them, and one
    before and one after, so that a column that never changed is seen to change."""
    if not len(values):
        return ()
    distinct = np.unique(values[: 50 * _FEW])
    if len(distinct) <= _FEW:
        distinct = np.unique(values)
    if len(distinct) <= _FEW:
        return tuple(map(float, [np.nextafter(distinct[0], -np.inf), *distinct]))
    deciles = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower")
    return tuple(map(float, np.unique(deciles)))


def _present(column: pl.Series) -> np.ndarray:
    values = column.cast(pl.Float64).to_numpy()
    return values[~np.isnan(values)]


def _text(column: pl.Series) -> pl.Series:
    return column.cast(pl.String)
