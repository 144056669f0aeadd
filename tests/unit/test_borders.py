"""Looking values up between borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill import borders
from tidemill.borders import count_at_most

whole = st.integers(-(10**6), 10**6)


@settings(max_examples=200)
@given(
    edges=st.one_of(st.lists(whole, unique=True, max_size=40), st.lists(st.integers(0, 60), unique=True, max_size=40)),
    values=st.lists(whole, max_size=40),
    scale=st.sampled_from([1, 7, 3_600_000_000]),
    shift=st.sampled_from([0, -(10**15), 10**15]),
)
def test_every_value_is_counted_as_a_search_would(edges, values, scale, shift):
    rising = np.sort(np.array(edges, np.int64)) * scale + shift
    near = np.concatenate([rising - 1, rising, rising + 1, np.array(values, np.int64) * scale + shift])
    asked = np.concatenate([near, [np.iinfo(np.int64).min + 1, np.iinfo(np.int64).max - 1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(borders, "_FEW_VALUES", 0)
        assert count_at_most(rising, asked).tolist() == np.searchsorted(rising, asked, side="right").tolist()
