"""Boosted trees as plain arrays, answered with NumPy alone: no scikit-learn is imported, nothing is done tree by tree.

A tree of up to 64 leaves is one word with a bit for each leaf. What a feature's value leaves possible is such a word
for every tree, and it changes only where some tree compares: so each feature has a short table, with a row of words
for every interval between its cuts. A prediction looks up one row for each feature and takes what all of them leave
possible, which is one bit, one leaf, in each tree (after Lucchese et al., "QuickScorer", SIGIR 2015).

The answers are scikit-learn's to the last bit: the same comparisons, the leaves added in the same order. A row costs a
hundredth of scikit-learn's call, a hundred rows a quarter.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

_CHUNK = 128  # rows whose words stay in the processor's cache
_FEW_ROWS = 16  # so many are gathered at once, more go feature by feature
_EXPONENT = {4: (np.float32, np.int32, 23, 127), 8: (np.float64, np.int64, 52, 1023)}


@dataclass(frozen=True, kw_only=True)
class BoostedTrees:
    """Trees whose leaf values are added up, from `baseline` on, to the log-odds of the positive class.

    Attributes:
        columns: the columns of the matrix that some tree looks at; for each of them:
        sizes: how many cuts it has.
        cuts: all cuts, column after column, ascending in each. A value lies in the interval that begins after the last
            cut below it.
        table: unsigned words (rows, words). Each column has `size + 2` rows: its intervals, and one for missing values.
        leaves: float64 (words, bits): the value that each bit of a word stands for.
        extended: True where trees have more leaves than a word has bits; then all but one word of a tree come out 0.
    """

    columns: np.ndarray
    sizes: np.ndarray
    cuts: np.ndarray
    table: np.ndarray
    leaves: np.ndarray
    baseline: float
    extended: bool

    def probabilities(self, matrix: np.ndarray) -> np.ndarray:
        """The probability of the positive class for each row of a float64 matrix (rows, features)."""
        return np.array([_logistic(log_odds) for log_odds in self.raw(matrix).tolist()])

    def raw(self, matrix: np.ndarray) -> np.ndarray:
        """The log-odds for each row."""
        if len(matrix) <= _CHUNK:
            return self._added(self._left_possible(self._rows(matrix)))
        return np.concatenate([self.raw(matrix[at : at + _CHUNK]) for at in range(0, len(matrix), _CHUNK)])

    def _rows(self, matrix: np.ndarray) -> np.ndarray:
        """Which row of the table holds for each column (first axis) of each row of the matrix (second axis)."""
        wanted = matrix.T[self.columns]
        found = np.empty(wanted.shape, dtype=np.complex128)
        found.real = self._numbers
        found.imag = wanted
        places = self._ordered.searchsorted(found)
        places += self._spare
        missing = np.isnan(wanted)
        return np.where(missing, self._missing, places) if missing.any() else places

    def _left_possible(self, rows: np.ndarray) -> np.ndarray:
        """The words (rows of the matrix, words) that all columns together leave over."""
        table, (columns, height) = self.table, rows.shape
        if not columns:
            return np.ones((height, len(self.leaves)), dtype=table.dtype)
        if height <= _FEW_ROWS:
            return np.bitwise_and.reduce(table.take(rows, axis=0), axis=0)
        words = table.take(rows[0], axis=0)
        other = np.empty_like(words)
        for places in rows[1:]:
            table.take(places, axis=0, out=other, mode="clip")  # with another mode NumPy would copy first
            np.bitwise_and(words, other, out=words)
        return words

    def _added(self, words: np.ndarray) -> np.ndarray:
        """The leaf of each word, added from the baseline on one after the other, as scikit-learn adds them."""
        real, whole, shift, bias = _EXPONENT[words.itemsize]
        bits = (words.astype(real).view(whole) >> shift) - bias  # of a power of two, the exponent is the bit's place
        values = self.leaves.take(np.maximum(bits, 0) + self._first_leaves)
        if self.extended:
            values[words == 0] = 0.0
        steps = np.empty((len(words), len(self.leaves) + 1))
        steps[:, 0] = self.baseline
        steps[:, 1:] = values
        return np.add.accumulate(steps, axis=1)[:, -1]

    @cached_property
    def _numbers(self) -> np.ndarray:
        return np.arange(len(self.columns), dtype=np.float64)[:, np.newaxis]

    @cached_property
    def _ordered(self) -> np.ndarray:
        """Column and cut as one complex number: those are ordered by their real part and then by the other, so that
        one search finds the places of all columns."""
        found = np.empty(len(self.cuts), dtype=np.complex128)
        found.real, found.imag = np.repeat(np.arange(len(self.sizes)), self.sizes), self.cuts
        return found

    @cached_property
    def _spare(self) -> np.ndarray:
        """The table has two rows more than there are cuts for each column that comes before."""
        return 2 * np.arange(len(self.columns), dtype=np.intp)[:, np.newaxis]

    @cached_property
    def _missing(self) -> np.ndarray:
        return (np.cumsum(self.sizes + 2) - 1)[:, np.newaxis]

    @cached_property
    def _first_leaves(self) -> np.ndarray:
        return np.arange(len(self.leaves), dtype=np.intp) * self.leaves.shape[1]

    def to_bytes(self) -> bytes:
        """As NumPy's `.npz`, of plain arrays only."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, body: bytes) -> BoostedTrees:
        """What `to_bytes` wrote. Raises ValueError, KeyError, EOFError or OSError for anything else."""
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            arrays = {field.name: found[field.name] for field in fields(cls)}
        return cls(**(arrays | {"baseline": float(arrays["baseline"]), "extended": bool(arrays["extended"])}))


def _logistic(log_odds: float) -> float:
    """As SciPy computes it, by the C library; NumPy's own vectorised exponential differs in the last bit."""
    try:
        return 1.0 / (1.0 + math.exp(-log_odds))
    except OverflowError:
        return 0.0
