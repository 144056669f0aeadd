"""Runs of rows that share their key, as files clustered by key have them: a key is looked up once for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidemill.offline.arrow_numbers import as_numbers

Integers = npt.NDArray[np.integer[Any]]

_SAMPLE = 4_096
_SHORTEST = 8
"""Shorter runs, on average, are not worth looking for."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Consecutive rows with one code each; `lengths` add up to the rows there are."""

    codes: Integers
    lengths: Integers

    @cached_property
    def ends(self) -> Integers:
        """The row after each run's last."""
        return np.cumsum(self.lengths)

    @cached_property
    def starts(self) -> Integers:
        """The row each run begins at."""
        return self.ends - self.lengths

    def joined(self) -> Runs:
        """Neighbours of one code as one run: a run may reach over a border of what was read."""
        first = np.ones(len(self.codes), bool)
        np.not_equal(self.codes[1:], self.codes[:-1], out=first[1:])
        if first.all():
            return self
        return Runs(codes=self.codes[first], lengths=np.add.reduceat(self.lengths, np.flatnonzero(first)))

    def spread(self, values: Integers) -> Integers:
        """One value for each run, repeated for each of its rows."""
        return np.repeat(values, self.lengths)


def first_rows(columns: Sequence[pa.ChunkedArray]) -> list[Integers] | None:
    """The rows of each chunk at which a run of equal keys begins; None where runs are short or cannot be told."""
    if not columns or any(column.null_count for column in columns):
        return None
    chunks = list(zip(*(column.chunks for column in columns), strict=False))
    if any(len(column.chunks) != len(chunks) for column in columns):
        return None
    found: list[Integers] = []
    for parts in chunks:
        numbers = [_comparable(part) for part in parts]
        if any(number is None or len(number) != len(parts[0]) for number in numbers):
            return None
        keys = [number for number in numbers if number is not None]
        if _changes([key[:_SAMPLE] for key in keys]).sum() * _SHORTEST > min(_SAMPLE, len(keys[0])) + _SHORTEST:
            return None
        found.append(np.flatnonzero(_changes(keys)))
    return found


def chunk_starts(column: pa.ChunkedArray) -> Integers:
    """The row each chunk of a column begins at."""
    lengths = [len(chunk) for chunk in column.chunks]
    return np.cumsum([0, *lengths], dtype=np.int64)[:-1]


def only(column: pa.ChunkedArray, rows: Sequence[Integers]) -> pa.ChunkedArray:
    """Some rows of each chunk of a column."""
    parts = [chunk.take(pa.array(some)) for chunk, some in zip(column.chunks, rows, strict=True)]
    return pa.chunked_array(parts, column.type)


def _comparable(chunk: pa.Array) -> Integers | None:
    """Integers that are equal exactly where values of one chunk are."""
    if pa.types.is_dictionary(chunk.type):
        return as_numbers(chunk.indices)
    return as_numbers(chunk) if pa.types.is_integer(chunk.type) else None


def _changes(keys: Sequence[Integers]) -> npt.NDArray[np.bool_]:
    """Whether a row's key differs from the one before it; a first row's always does."""
    changed = np.ones(len(keys[0]), bool)
    if len(changed):
        np.not_equal(keys[0][1:], keys[0][:-1], out=changed[1:])
    for key in keys[1:]:
        changed[1:] |= key[1:] != key[:-1]
    return changed
