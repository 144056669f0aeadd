"""Being told to end, by SIGTERM or Ctrl-C: what is in hand is finished, but nothing is waited for without end."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import sleep


class Stop(threading.Event):
    """An event that a signal's handler may set at any moment.

    Python's own takes a lock to be set. A handler that runs while its thread holds that lock, since it was about to
    wait or had just done so, would wait for itself for ever. `SimpleQueue` is made to be used by handlers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_told, self._told = False, SimpleQueue[None]()

    def is_set(self) -> bool:
        return self._is_told

    def set(self) -> None:
        self._is_told = True
        self._told.put(None)

    def clear(self) -> None:
        self._is_told, self._told = False, SimpleQueue[None]()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_told:
            with suppress(Empty):
                self._told.put(self._told.get(timeout=timeout))  # there for whoever else waits
        return self._is_told


def stop_when_told() -> Stop:
    """Set by the first SIGTERM or SIGINT. Another one ends the process at once, as if this had never been called."""
    stop = Stop()

    def finish(_number: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, finish)
    return stop


def end_within(seconds: float) -> None:
    """Have this process end in so many seconds, whatever its threads wait for then; it says where each of them was."""
    threading.Thread(target=_end_after, args=(seconds,), name="tidemill-end", daemon=True).start()


def _end_after(seconds: float) -> None:
    sleep(seconds)
    sys.stderr.write(f"Told to end, this process had not ended {seconds:g} s later. It ends now; it was here:\n")
    sys.stderr.flush()
    faulthandler.dump_traceback()
    os._exit(1)
