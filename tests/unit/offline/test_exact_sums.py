"""Sums of floats are the nearest float to what they should be, whatever lies beside them."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidemill.offline.exact_sums import Limbs
from tidemill.offline.slices import totals

FINITE = st.one_of(
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
    st.integers(-(2**53), 2**53).map(float),
    st.sampled_from([0.1, -0.1, 1e16, -1e16, 1.0, 2.0**-60, 2.0**53 + 2, 5e-324, -5e-324, sys.float_info.min]),
)


def sums_of(values: list[float], slices: list[tuple[int, int]]) -> list[float]:
    """Slices as the window engine sums them: by differences of prefix sums, limb by limb."""
    column = np.array(values, dtype=np.float64)
    bounds = np.array([item[0] for item in slices]), np.array([item[1] for item in slices])
    limbs = Limbs.of(column, terms=len(column))
    return limbs.joined([totals(numbers, [bounds])[0] for numbers in limbs.split(column)]).tolist()


@settings(max_examples=400)
@given(values=st.lists(FINITE, min_size=1, max_size=30), data=st.data())
@example(values=[1e16, 1.0, -1e16], data=None)
@example(values=[-1.0, 2.0**-70, 2.0**-100], data=None)
@example(values=[2.0**53, 1.0, 2.0**-200], data=None)
def test_every_slice_is_the_correctly_rounded_sum(values: list[float], data: st.DataObject | None):
    place = st.integers(0, len(values))
    slices = [(0, len(values)), (0, 0)]
    if data is not None:
        slices += [(min(pair), max(pair)) for pair in data.draw(st.lists(st.tuples(place, place), max_size=8))]
    expected = [math.fsum(values[first:last]) for first, last in slices]
    assert sums_of(values, slices) == expected


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30))
def test_whole_floats_and_integers_are_summed_as_they_are(numbers: list[int]):
    assert sums_of([float(number) for number in numbers], [(0, len(numbers))]) == [float(sum(numbers))]
    column = np.array(numbers, dtype=np.int64)
    limbs = Limbs.of(column, terms=len(column))
    (kept,) = limbs.split(column)
    assert kept is column
    assert limbs.joined([column]) is column


def test_infinities_and_nan_spoil_only_the_sums_they_are_in():
    values = [0.1, math.inf, 0.2, -math.inf, 0.3, math.nan, 0.1, 0.2]
    found = sums_of(values, [(0, 1), (0, 2), (2, 4), (1, 4), (4, 6), (6, 8), (2, 3)])
    assert found[:3] == [0.1, math.inf, -math.inf]
    assert all(math.isnan(value) for value in found[3:5])
    assert found[5:] == [0.1 + 0.2, 0.2]


@pytest.mark.parametrize("terms", [1, 1_000, 10**7, 2**40])
def test_the_width_of_limbs_changes_no_bit(terms: int):
    values = np.random.default_rng(0).normal(size=64) * 10.0 ** np.arange(-32, 32)
    limbs = Limbs.of(values, terms=max(terms, 64))
    bounds = np.arange(64), np.full(64, 64)
    found = limbs.joined([totals(numbers, [bounds])[0] for numbers in limbs.split(values)])
    assert found.tolist() == [math.fsum(values[start:]) for start in range(64)]


def test_an_empty_column_sums_to_nothing():
    limbs = Limbs.of(np.zeros(0), terms=0)
    assert [len(numbers) for numbers in limbs.split(np.zeros(0))] == [0] * limbs.width
