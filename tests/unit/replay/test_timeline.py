"""A replay does things in the order in which they would have happened."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.replay.timeline import moments

instants = st.lists(st.integers(0, 50), max_size=30).map(lambda items: np.array(sorted(items), dtype=np.int64))


def test_an_event_known_at_the_instant_of_a_request_is_pushed_before_it() -> None:
    (moment,) = moments(known={"arrivals": np.array([10])}, ticks=np.array([], dtype=np.int64), requests=np.array([10]))

    assert moment.events == {"arrivals": slice(0, 1)}
    assert moment.requests == slice(0, 1)


def test_an_event_known_after_the_last_moment_belongs_to_none() -> None:
    found = list(
        moments(known={"arrivals": np.array([11])}, ticks=np.array([10]), requests=np.array([], dtype=np.int64))
    )

    assert [moment.events for moment in found] == [{}]


@given(known=instants, ticks=instants, requests=instants)
def test_every_request_and_every_event_that_can_matter_happens_exactly_once_and_in_time(
    known: np.ndarray, ticks: np.ndarray, requests: np.ndarray
) -> None:
    found = list(moments(known={"s": known}, ticks=ticks, requests=requests))

    assert [moment.at for moment in found] == sorted({*ticks.tolist(), *requests.tolist()})
    assert [at for moment in found for at in requests[moment.requests]] == requests.tolist()
    assert {moment.at for moment in found if moment.ticks} == set(ticks.tolist())
    pushed: list[int] = []
    for moment in found:
        pushed += known[moment.events.get("s", slice(0, 0))].tolist()
        assert pushed == [instant for instant in known.tolist() if instant <= moment.at]
