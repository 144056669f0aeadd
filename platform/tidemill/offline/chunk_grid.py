"""A chunk whose rows share few event times (hourly or daily tables) as a grid of times by entities.

Each cell says which row an entity had last at or before a time, so a label needs no search: one look into the table.
Nothing is sorted; filling the grid is one pass over the rows.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from tidemill.offline.chunk_index import ChunkIndex, Integers, Mask, Matches, Rows
from tidemill.offline.instants import Instants

CELLS_PER_ROW = 3
"""A grid is made where it has at most so many cells for each row; sparser chunks are packed instead."""
_MOST_CELLS = 1 << 27
_STEPS = 12
"""How many times a label goes back over rows not yet known before the packed index takes over."""


class ChunkGrid:
    """Rows in event order, looked up by (time, entity). Answers exactly as `ChunkIndex` does."""

    def __init__(self, rows: Rows, times: Instants, counts: Integers) -> None:
        self._rows = rows
        self._times = times
        size = rows.size
        ranks = np.arange(len(rows), dtype=np.int32)
        self._cell = np.repeat(np.arange(len(times), dtype=np.int32) * np.int32(size), counts)
        self._cell += rows.codes.astype(np.int32, copy=False)
        table = np.full(len(times) * size, -1, np.int32)
        table[self._cell] = ranks  # of rows in one cell the last one stays
        self._repeated = None if rows.known is None else self._repeated_cells(table, ranks)
        grid = table.reshape(len(times), size)
        np.maximum.accumulate(grid, axis=0, out=grid)
        self._table = table
        self._present = grid[-1] >= 0
        self._all_present = bool(self._present.all())

    @classmethod
    def of(cls, rows: Rows) -> ChunkGrid | None:
        """The grid of these rows, or None where they are not in event order or their times are too many."""
        starts = np.flatnonzero(rows.event[1:] != rows.event[:-1]) + 1
        cells = (len(starts) + 1) * rows.size
        if cells > CELLS_PER_ROW * len(rows) or cells > _MOST_CELLS:
            return None
        starts = np.concatenate([[0], starts])
        times = rows.event[starts]
        if not (times[1:] > times[:-1]).all():
            return None
        return cls(rows, times, np.diff(np.append(starts, len(rows))))

    def holds(self, codes: Integers) -> Mask | None:
        """Which of these entities have any row here; None if all entities do."""
        return None if self._all_present else self._present[codes]

    def match(self, codes: Integers, cutoff: Instants, known_cutoff: Instants) -> tuple[Integers, Matches]:
        """The winner within this chunk of each label that has one: the labels' places, and their rows."""
        line = np.searchsorted(self._times, cutoff, side="right") - 1
        rank = np.where(line >= 0, self._table[line * self._rows.size + codes], -1)
        if self._rows.known is not None:
            self._settle(self._rows.known, rank, codes, cutoff, known_cutoff)
        place = np.flatnonzero(rank >= 0)
        return place, self._rows.matches(rank[place])

    def _settle(
        self, known: Instants, rank: Integers, codes: Integers, cutoff: Instants, known_cutoff: Instants
    ) -> None:
        """Go back over rows that were not known yet; a cell with several rows is asked for its best known one."""
        open_ = np.flatnonzero(rank >= 0)
        for _ in range(_STEPS):
            here = rank[open_]
            unknown = known[here] > known_cutoff[open_]
            if self._repeated is not None:
                several = np.flatnonzero(self._repeated[self._cell[here]])
                if len(several):
                    asked = open_[several]
                    best = self._best_of_cell(here[several], codes[asked], known_cutoff[asked])
                    rank[asked] = np.where(best >= 0, best, here[several])
                    unknown[several] = best < 0
            open_, here = open_[unknown], here[unknown]
            if not len(open_):
                return
            before = self._cell[here] - self._rows.size
            rank[open_] = np.where(before >= 0, self._table[before], -1)
            open_ = open_[rank[open_] >= 0]
        if len(open_):
            rank[open_] = self._packed.match_hard(codes[open_], cutoff[open_], known_cutoff[open_])

    def _best_of_cell(self, rank: Integers, codes: Integers, known_cutoff: Instants) -> Integers:
        """Among the rows of one entity and time the one known last by the cut-off; -1 where none was known."""
        index, members = self._several
        event = self._rows.event[rank]
        found = index.match_ranks(codes, event, known_cutoff)
        best = np.where(found >= 0, members[found], -1)
        return np.where((best >= 0) & (self._rows.event[best] == event), best, -1)

    def _repeated_cells(self, table: npt.NDArray[np.int32], ranks: npt.NDArray[np.int32]) -> Mask | None:
        hidden = table[self._cell] != ranks
        if not hidden.any():
            return None
        repeated = np.zeros(len(table), bool)
        repeated[self._cell[hidden]] = True
        return repeated

    @cached_property
    def _several(self) -> tuple[ChunkIndex, Integers]:
        """An index of just the rows that share their cell, and their ranks."""
        assert self._repeated is not None  # noqa: S101 - asked for only where cells repeat
        members = np.flatnonzero(self._repeated[self._cell])
        return ChunkIndex(self._rows.take(members)), members

    @cached_property
    def _packed(self) -> ChunkIndex:
        return ChunkIndex(self._rows)


def index_chunk(rows: Rows) -> ChunkIndex | ChunkGrid:
    """The index that suits these rows."""
    grid = ChunkGrid.of(rows) if len(rows) else None
    return grid or ChunkIndex(rows)
