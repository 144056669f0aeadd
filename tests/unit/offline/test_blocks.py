"""Rows of a row group in blocks: every row in one of them, and hardly more is read than without blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.offline import blocks
from tidemill.offline.blocks import blocks_of


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@settings(max_examples=100)
@given(rows=st.lists(st.integers(0, 300), min_size=1, max_size=60), risen=st.booleans())
def test_every_row_lies_in_its_block_and_little_is_read_twice(size: int, rows: list[int], risen: bool) -> None:
    wanted = np.array(sorted(rows) if risen else rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_ROWS", size)
        found = blocks_of(wanted)
    assert np.array_equal(np.concatenate([wanted[block.wanted] for block in found]), wanted)
    for block in found:
        assert block.first == wanted[block.wanted].min()
        assert block.end == wanted[block.wanted].max() + 1
    assert sum(block.end - block.first for block in found) <= 1.25 * (wanted.max() + 1 - wanted.min())
