"""Positions by row group: each group gets its own in their order, however they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.offline import row_owners, side_by_side
from tidemill.offline.row_owners import by_owner

stretch = st.tuples(st.integers(-1, 60), st.integers(1, 12))


@pytest.mark.parametrize("short", [0, 4, 1_000])
@settings(max_examples=100)
@given(stretches=st.lists(stretch, max_size=15), sizes=st.lists(st.integers(1, 20), min_size=1), few=st.integers(1, 40))
def test_every_group_gets_the_places_of_its_positions(
    short: int, stretches: list[tuple[int, int]], sizes: list[int], few: int
) -> None:
    offsets = np.cumsum([0, *sizes[:-1]])
    positions = np.concatenate([[], *(np.arange(first, first + length) for first, length in stretches)])
    positions = np.minimum(positions.astype(np.int64), sum(sizes) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_owners, "_SHORT", short)
        patch.setattr(side_by_side, "_FEW", few)
        found = {number: np.arange(len(positions))[places] for number, places in by_owner(offsets, positions)}
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        expected = np.flatnonzero((positions >= offset) & (positions < offset + size))
        assert np.array_equal(found.get(number, []), expected)
    assert all(len(places) for places in found.values())
