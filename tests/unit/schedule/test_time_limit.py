"""Work that takes too long is interrupted, in the main thread and in others; work in time is left alone."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta

import pytest
from waiting import PATIENCE

from tidemill.schedule.time_limit import TimedOutError, time_limit


def spin() -> None:
    while True:
        threading.Event().wait(0.001)


def test_endless_work_is_given_up() -> None:
    with pytest.raises(TimedOutError, match="timeout"), time_limit(timedelta(milliseconds=50)):
        spin()


def test_work_in_another_thread_is_given_up_too() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with time_limit(timedelta(milliseconds=50)):
                spin()
        except TimedOutError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert len(caught) == 1


def test_nothing_is_interrupted_once_the_block_is_left() -> None:
    for number in range(200):
        with contextlib.suppress(TimedOutError), time_limit(timedelta(milliseconds=2)):
            threading.Event().wait(0.001 * (number % 4))
        assert sum(range(1_000)) == 499_500
    threading.Event().wait(0.05)


def test_without_a_limit_nothing_is_interrupted() -> None:
    with time_limit(None):
        threading.Event().wait(0.01)
