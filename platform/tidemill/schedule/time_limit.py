"""Giving up on work that takes too long."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
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
            _interrupt(self._thread, None)
        del self._block

    def _keep_ringing(self) -> None:
        while not self._over.wait(_RING_AGAIN if self._ring() else _LOOK_AGAIN):
            pass

    def _ring(self) -> bool:
        """Interrupt the block, unless it must not be now. Nothing runs in it between the look and the interruption."""
        with self._changing:
            if self._over.is_set() or not self._may_be_interrupted():
                return False
            _interrupt(self._thread, TimedOutError)
            return True

    def _may_be_interrupted(self) -> bool:
        frames = list(self._frames())
        innermost = frames[0] if frames else self._block
        return not any(map(_is_untouched, frames)) and not _module(innermost).startswith(_KEEPS_BOOKS)

    def _frames(self) -> Iterator[FrameType]:
        """What the block is in, the innermost first."""
        frame = sys._current_frames().get(self._thread)
        while frame is not None and frame is not self._block:
            yield frame
            frame = frame.f_back


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


def _interrupt(thread: int, error: type[Exception] | None) -> None:
    """Have Python raise `error` in a thread, or forget what was to be raised there."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
