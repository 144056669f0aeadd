"""Calls of a library that may wait for ever."""

from __future__ import annotations

import threading

import pytest
from waiting import PATIENCE, wait_until

from tidemill.online.bounded_calls import BoundedCalls


def test_what_a_call_returns_or_raises_is_the_callers() -> None:
    calls = BoundedCalls("calls")
    assert calls.run(lambda: 7, seconds=PATIENCE) == 7
    with pytest.raises(KeyError, match="unknown"):
        calls.run(lambda: {}["unknown"], seconds=PATIENCE)
    assert calls.run(lambda: None, seconds=PATIENCE) is None


def test_one_that_does_not_come_back_is_left_and_nothing_else_is_begun_beside_it() -> None:
    calls, over, begun = BoundedCalls("calls"), threading.Event(), list[int]()
    with pytest.raises(TimeoutError):
        calls.run(lambda: over.wait(PATIENCE), seconds=0.05)
    with pytest.raises(TimeoutError):
        calls.run(lambda: begun.append(1), seconds=PATIENCE)
    assert begun == []
    over.set()
    wait_until(lambda: not any(thread.name == "calls" for thread in threading.enumerate()))
    calls.run(lambda: begun.append(2), seconds=PATIENCE)
    assert begun == [2]
