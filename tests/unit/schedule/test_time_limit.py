"""Work that takes too long is interrupted, in the main thread and in others; work in time is left alone."""

from __future__ import annotations

import contextlib
import sys
import threading
from datetime import timedelta
from types import FrameType

import pytest
from waiting import PATIENCE

from tidemill.schedule.time_limit import TimedOutError, _interrupt_in, time_limit


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


def test_a_thread_that_is_being_started_is_started() -> None:
    """Interrupted there, Python would end the new thread, and the one that starts it would wait for it for ever."""
    done = threading.Event()

    def start_threads() -> None:
        for number in range(300):
            with contextlib.suppress(TimedOutError), time_limit(timedelta(microseconds=300 + 10 * (number % 50))):
                for _ in range(20):
                    threading.Thread(target=int).start()
        done.set()

    threading.Thread(target=start_threads, daemon=True).start()
    assert done.wait(PATIENCE)


def test_what_is_entered_or_left_is_entered_or_left_whole() -> None:
    class Door:
        def __enter__(self) -> None:
            spin_for(20)
            done.append("entered")

        def __exit__(self, *_: object) -> None:
            spin_for(20)
            done.append("left")

    def spin_for(times: int) -> None:
        for _ in range(times):
            threading.Event().wait(0.001)

    done: list[str] = []
    with pytest.raises(TimedOutError), time_limit(timedelta(milliseconds=1)), Door():
        spin()
    assert done == ["entered", "left"]


def test_work_that_went_on_since_it_was_looked_at_is_left_alone() -> None:
    """Threads may change between the look and the interruption, and the work may be anywhere by then."""
    seen: list[FrameType] = []
    gone_on, over, ended = threading.Event(), threading.Event(), threading.Event()

    def look() -> None:
        seen.append(sys._getframe())

    def work() -> None:
        look()
        gone_on.set()
        assert over.wait(PATIENCE)
        ended.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert gone_on.wait(PATIENCE)
    assert thread.ident is not None
    assert not _interrupt_in(thread.ident, seen[0])
    over.set()
    thread.join(PATIENCE)
    assert ended.is_set()


def test_work_that_catches_the_interruption_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.schedule.time_limit._RING_AGAIN", 0.01)
    caught = []

    def stubborn() -> None:
        try:
            spin()
        except TimedOutError as error:
            caught.append(error)
        spin()

    with pytest.raises(TimedOutError), time_limit(timedelta(milliseconds=1)):
        stubborn()
    assert len(caught) == 1
