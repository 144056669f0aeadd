"""The kernel against the oracle, on chunks of every shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Row, winner

from tidemill.offline import chunk_grid, guessing, side_by_side, walk_back
from tidemill.offline.chunk_grid import ChunkGrid
from tidemill.offline.chunk_index import ChunkIndex, Rows
from tidemill.offline.instants import FOREVER, NEVER
from tidemill.offline.key_runs import Runs
from tidemill.offline.lookup import Chunk, Labels, Lifetime, find_winners
from tidemill.offline.run_index import RunIndex

ENTITIES = 3
row = st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, 8), st.one_of(st.none(), st.integers(0, 12)))
label = st.tuples(st.integers(-1, ENTITIES - 1), st.integers(-1, 12))


def _runs_of(codes):
    """The runs of equal codes, as a clustered file has them."""
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    return Runs(codes=codes[starts], lengths=np.diff(starts, append=len(codes)))


def _chunks(rows, size, *, has_known, order, grid, bounded):
    rows = sorted(enumerate(rows), key=order)
    rows = [item for _, item in rows]
    chunks = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        codes = np.array([item[0] for item in part], np.int64)
        event = np.array([item[1] for item in part], np.int64)
        known = np.array([NEVER if item[2] is None else item[2] for item in part], np.int64) if has_known else None
        part_rows = Rows(codes=codes, event=event, known=known, offset=start, size=ENTITIES)

        def load(part_rows=part_rows):
            return _index(part_rows, grid=grid, in_runs=bounded)

        between = (int(codes.min()), int(codes.max()) + 1) if bounded else None
        chunks.append(Chunk(least=int(event.min()), greatest=int(event.max()), load=load, first_codes=between))
    return rows, chunks


def _index(rows, *, grid, in_runs):
    index = ChunkGrid.of(rows) if grid else None
    if in_runs:
        index = RunIndex.of(_runs_of(rows.codes), rows.event, rows.known, offset=rows.offset, size=rows.size)
    return index or ChunkIndex(rows)


ORDERS = {
    "as given": lambda item: item[0],
    "by time": lambda item: item[1][1],
    "by key and time": lambda item: (item[1][0], item[1][1]),
    "by key": lambda item: item[1][0],
}


@pytest.mark.parametrize("steps", [0, 1, 12])
@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=60)
@given(
    rows=st.lists(row, max_size=40),
    labels=st.lists(label, max_size=12),
    size=st.integers(1, 50),
    ttl=st.sampled_from([0, 1, 3]),
    has_known=st.booleans(),
    filter_known=st.booleans(),
    grid=st.booleans(),
    bounded=st.booleans(),
    shares=st.booleans(),
)
def test_every_label_gets_the_row_the_oracle_gives(
    order, steps, rows, labels, size, ttl, has_known, filter_known, grid, bounded, shares
):
    rows, chunks = _chunks(rows, size, has_known=has_known, order=ORDERS[order], grid=grid, bounded=bounded)
    at = np.array([item[1] for item in labels], np.int64)
    codes = np.array([item[0] for item in labels], np.int64)
    asked = Labels(
        codes=codes,
        first_codes=codes if bounded else None,
        cutoff=at,
        known_cutoff=at if filter_known else np.full(len(at), FOREVER),
        lifetime=Lifetime(at=at, ttl=ttl) if ttl else None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk_back, "_STEPS", steps)
        patch.setattr(guessing, "_STEPS", steps)
        patch.setattr(chunk_grid, "_STEPS", steps)
        patch.setattr(chunk_grid, "CELLS_PER_ROW", 100)
        patch.setattr(side_by_side, "_MANY", 1 if shares else 50_000)
        patch.setattr(side_by_side, "_FEW", 3 if shares else 15_000)
        winners = find_winners(chunks, asked)
    found = winners.by_row(winners.position, len(labels), without=-1)
    history = [Row(keys=(code,), event=event, known=known, values={}) for code, event, known in rows]
    for place, (code, instant) in enumerate(labels):
        expected = winner(
            history,
            (None if code < 0 else code,),
            at=instant,
            cutoff=instant,
            ttl=ttl,
            has_known=has_known,
            filter_known=filter_known,
        )
        assert found[place] == (-1 if expected is None else expected)
