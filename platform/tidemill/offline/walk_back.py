"""From the newest row a label may see to the one that wins: back over rows not known yet, then through a tie."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tidemill.offline.instants import Instants

Integers = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

_STEPS = 12
"""How far a label walks back over rows not yet known, or through a tie, before an exact search takes over."""
_ALL = slice(None)


class Neighbours(Protocol):
    """Rows in event order entity by entity, as some labels see them, each of which asks for one entity.

    Places may be negative, which is no row; `labels` tells for which of the labels they are.
    """

    def known(self, place: Integers) -> Instants: ...

    def inside(self, place: Integers, labels: Integers | slice) -> Mask:
        """Whether the rows are of the labels' entities."""
        ...

    def tied(self, before: Integers, place: Integers, labels: Integers | slice) -> Mask:
        """Whether the rows at `before` are of the entity and the event time of those at `place`."""
        ...


def settle(rows: Neighbours, place: Integers, known_cutoff: Instants) -> Mask:
    """Move each label's place to the row that wins for it, -1 where none does; the mask tells who gave up."""
    hard = _skip_unknown(rows, place, known_cutoff)
    hard |= _settle_ties(rows, place, known_cutoff)
    return hard


def _skip_unknown(rows: Neighbours, place: Integers, known_cutoff: Instants) -> Mask:
    """Move `place` to the newest known row, -1 where there is none; the mask tells who gave up."""
    hard = np.zeros(len(place), bool)
    late = np.flatnonzero((rows.known(place) > known_cutoff) & (place >= 0))
    for _ in range(_STEPS):
        if not len(late):
            return hard
        before = place[late] - 1
        inside = rows.inside(before, late)
        place[late[~inside]] = -1
        late, before = late[inside], before[inside]
        place[late] = before
        late = late[rows.known(before) > known_cutoff[late]]
    hard[late] = True
    return hard


def _settle_ties(rows: Neighbours, place: Integers, known_cutoff: Instants) -> Mask:
    """Among rows of the same event time take the one known last; the mask tells who gave up."""
    hard = np.zeros(len(place), bool)
    before = place - 1
    tied = np.flatnonzero(rows.tied(before, place, _ALL))
    before = before[tied]
    for _ in range(_STEPS):
        if not len(tied):
            return hard
        here = rows.known(before)
        better = (here <= known_cutoff[tied]) & (here > rows.known(place[tied]))
        place[tied[better]] = before[better]
        before = before - 1
        same = np.flatnonzero(rows.tied(before, place[tied], tied))
        tied, before = tied[same], before[same]
    hard[tied] = True
    return hard
