"""A guess on a straight line is corrected until it is what a binary search would have found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.offline import guessing
from tidemill.offline.guessing import Stretches
from tidemill.offline.instants import FOREVER, NEVER

instant = st.one_of(st.integers(0, 20), st.integers(-(2**62), 2**62), st.sampled_from([NEVER + 1, FOREVER]))
stretches = st.lists(st.lists(instant, min_size=1, max_size=30).map(sorted), min_size=1, max_size=5)


def _expected(found: list[list[int]], starts: np.ndarray, asked: list[tuple[int, int]]) -> list[int]:
    return [int(starts[number] + np.searchsorted(found[number], limit, side="right") - 1) for number, limit in asked]


@pytest.mark.parametrize("steps", [0, 1, 4])
@settings(max_examples=100)
@given(data=st.data(), found=stretches)
def test_a_needle_is_found_however_its_stretch_rises(steps: int, data: st.DataObject, found: list[list[int]]) -> None:
    asked = data.draw(st.lists(st.tuples(st.integers(0, len(found) - 1), instant), max_size=20))
    ends = np.cumsum([len(stretch) for stretch in found])
    starts = ends - np.diff(ends, prepend=0)
    lying = Stretches(np.array([value for stretch in found for value in stretch], np.int64), starts, ends)
    numbers, limits = (np.array([pair[place] for pair in asked], np.int64) for place in (0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guessing, "_STEPS", steps)
        places = lying.last_at_most(numbers, limits)
    assert places.tolist() == _expected(found, starts, asked)


def test_times_that_come_in_bursts_are_found_all_the_same() -> None:
    rng = np.random.default_rng(5)
    values = np.sort(np.concatenate([rng.integers(0, 10, 5_000), rng.integers(0, 10**15, 50), [10**15]]))
    limits = rng.integers(-5, 10**15 + 5, 2_000)
    limits[:1_000] = rng.integers(-5, 15, 1_000)
    lying = Stretches(values, np.array([0]), np.array([len(values)]))
    assert np.array_equal(
        lying.last_at_most(np.zeros(2_000, np.int64), limits), np.searchsorted(values, limits, side="right") - 1
    )
