"""Giving up on work that takes too long."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from tidemill.errors import TidemillError


class TimedOutError(TidemillError):
    """Work took longer than its schedule's timeout and was given up; it is tried again."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "The work took longer than its schedule's timeout and was given up.")


@contextmanager
def time_limit(limit: timedelta | None) -> Iterator[None]:
    """Let the block take `limit` of wall time at most, in any thread; None sets no limit.

    The block is interrupted between two steps of Python by TimedOutError: a call that blocks inside a library ends
    first.
    """
    if limit is None:
        yield
        return
    with _Alarm(limit):
        yield


class _Alarm:
    def __init__(self, limit: timedelta) -> None:
        self._thread = threading.get_ident()
        self._changing = threading.Lock()
        self._over = False
        self._timer = threading.Timer(limit.total_seconds(), self._ring)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        """After this nothing is interrupted any more: the alarm rings no longer, and what it sent is taken back."""
        self._timer.cancel()
        with self._changing:
            self._over = True
            _interrupt(self._thread, None)

    def _ring(self) -> None:
        with self._changing:
            if not self._over:
                _interrupt(self._thread, TimedOutError)


def _interrupt(thread: int, error: type[Exception] | None) -> None:
    """Have Python raise `error` in a thread, or forget what was to be raised there."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
