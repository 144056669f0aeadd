"""Giving up on work that takes too long."""

from __future__ import annotations

import ctypes
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from itertools import compress, repeat, starmap
from operator import is_, itemgetter
from types import FrameType

from tidemill.errors import TidemillError

_LOOK_AGAIN = 0.005  # seconds, where the work is at a place that must not be interrupted
_RING_AGAIN = 1.0  # seconds, where the work has caught the interruption and goes on
_ENTERING = frozenset({"__enter__", "__exit__", "__del__"})
_BLOCKING = frozenset({"wait", "wait_for"})
_UNTOUCHED = (
    "logging",
    "importlib",
    "contextlib",
    "weakref",
    "_weakrefset",
    "tidemill.metadata",
    "tidemill.materialize.ledger",
    "tidemill.materialize.lease",
)
_KEEPS_BOOKS = ("tidemill.materialize", "tidemill.schedule")


class TimedOutError(TidemillError):
    """Work took longer than its schedule's timeout and was given up; it is tried again."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "The work took longer than its schedule's timeout and was given up.")


def time_limit(limit: timedelta | None) -> AbstractContextManager[None]:
    """Let the block take `limit` of wall time at most, in any thread; None sets no limit.

    The block is interrupted between two steps of Python by TimedOutError, as often as it takes: a call that blocks
    inside a library ends first. It is never interrupted where something would be left locked or half started: while a
    `with` is entered or left, a thread begun, a module imported, a line logged or the ledger written.
    """
    return nullcontext() if limit is None else _Alarm(limit)


class _Alarm(AbstractContextManager[None]):
    def __init__(self, limit: timedelta) -> None:
        self._thread = threading.get_ident()
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._timer = threading.Timer(limit.total_seconds(), self._keep_ringing)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._block = sys._getframe(1)
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        """After this nothing is interrupted any more: the alarm rings no longer, and what it sent is taken back."""
        self._timer.cancel()
        with self._changing:
            self._over.set()
            _take_back(self._thread)
        del self._block

    def _keep_ringing(self) -> None:
        while not self._over.wait(_RING_AGAIN if self._ring() else _LOOK_AGAIN):
            pass

    def _ring(self) -> bool:
        """Interrupt the block, unless it must not be now; say whether that was done."""
        with self._changing:
            if self._over.is_set():
                return False
            frames = self._frames()
            if not frames:
                self._over.set()  # Python interrupted the block's very end, and never came to `__exit__`
                return False
            return self._may_be_interrupted(frames) and _interrupt_in(self._thread, frames[0])

    def _may_be_interrupted(self, frames: list[FrameType]) -> bool:
        within = frames[:-1]
        return not any(map(_is_untouched, within)) and not _module(frames[0]).startswith(_KEEPS_BOOKS)

    def _frames(self) -> list[FrameType]:
        """What the block is in, the innermost first, and what holds the block last; nothing once that is left."""
        found: list[FrameType] = []
        frame = sys._current_frames().get(self._thread)
        while frame is not None:
            found.append(frame)
            if frame is self._block:
                return found
            frame = frame.f_back
        return []


def _is_untouched(frame: FrameType) -> bool:
    """Whether an interruption here would leave a lock held, a thread half started or a run without its end.

    Python takes a thread that is just being started for the one that starts it, and would interrupt the wrong one.
    """
    module, name = _module(frame), frame.f_code.co_name
    if module == "threading":
        return name not in _BLOCKING
    return name in _ENTERING or module.startswith(_UNTOUCHED)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _interrupt_in(thread: int, frame: FrameType) -> bool:
    """Have Python raise TimedOutError in a thread, if it is still in the call that was looked at; say whether it was.

    Python may change threads between any two steps of its own, and one that goes on after the look could be anywhere.
    So this is a single step: one call, of nothing that is written in Python.
    """
    innermost = map(itemgetter(thread), starmap(sys._current_frames, [()]))
    interruption = (ctypes.c_ulong(thread), ctypes.py_object(TimedOutError))
    if_still_there = compress([interruption], map(is_, innermost, repeat(frame)))
    return sum(starmap(ctypes.pythonapi.PyThreadState_SetAsyncExc, if_still_there)) == 1


def _take_back(thread: int) -> None:
    """Have Python forget what it was to raise in a thread."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
