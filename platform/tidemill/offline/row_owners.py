"""Which of many positions lie in which row group."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tidemill.borders import count_at_most
from tidemill.offline.radix import stable_order
from tidemill.offline.side_by_side import few_at_a_time, shares_of, side_by_side

Places = npt.NDArray[np.int64]

_SHORT = 16
"""Stretches that are shorter, on average, are not worth telling apart."""


def by_owner(offsets: Places, positions: Places) -> Iterator[tuple[int, Places | slice]]:
    """For each row group that holds any: its number, and the places of its positions, which rise.

    `offsets` are the positions at which row groups begin, from 0; negative positions lie in none. Positions that
    lie in stretches, as those of a clustered source do that was asked in its order, are told apart stretch by stretch.
    """
    stretches = _stretches(offsets, positions)
    return _of_stretches(*stretches, len(positions)) if stretches is not None else _of_each(offsets, positions)


def _stretches(offsets: Places, positions: Places) -> tuple[Places, Places] | None:
    """The owners of stretches of positions, counted from 1, and where each begins; None where many are short."""
    owners, begins = [], []
    for some in few_at_a_time(len(positions)):
        here = positions[some]
        owner = count_at_most(offsets, np.array([here.min(), here.max()]))
        first = np.zeros(1, np.int64)
        if owner[0] != owner[1]:
            owner = count_at_most(offsets, here)
            first = np.concatenate([first, np.flatnonzero(owner[1:] != owner[:-1]) + 1])
            if len(first) * _SHORT > len(here):
                return None
        owners.append(owner[first])
        begins.append(first + some.start)
    return (np.concatenate(owners), np.concatenate(begins)) if owners else None


def _of_stretches(owners: Places, begins: Places, size: int) -> Iterator[tuple[int, Places | slice]]:
    ends = np.append(begins[1:], size)
    by_number = np.argsort(owners, kind="stable")
    borders = np.flatnonzero(np.diff(owners[by_number], prepend=-1, append=-1))
    for first, last in pairwise(borders.tolist()):
        mine = by_number[first:last]
        number = int(owners[mine[0]]) - 1
        if number < 0:
            continue
        if (begins[mine][1:] == ends[mine][:-1]).all():
            yield number, slice(int(begins[mine[0]]), int(ends[mine[-1]]))
        else:
            pieces = zip(begins[mine].tolist(), ends[mine].tolist(), strict=True)
            yield number, np.concatenate([np.arange(*piece) for piece in pieces])


def _of_each(offsets: Places, positions: Places) -> Iterator[tuple[int, Places | slice]]:
    spans = shares_of(len(positions))
    split = side_by_side([partial(_split, offsets, positions, span) for span in spans], size=len(positions))
    for number in range(len(offsets)):
        places = np.concatenate([order[ends[number] : ends[number + 1]] for order, ends in split])
        if len(places):
            yield number, places


def _split(offsets: Places, positions: Places, span: slice) -> tuple[Places, Places]:
    """Places by row group, and where those of each row group begin; a last border ends the last."""
    owner = count_at_most(offsets, positions[span])
    order = stable_order(owner)
    order += span.start
    return order, np.cumsum(np.bincount(owner, minlength=len(offsets) + 1))
