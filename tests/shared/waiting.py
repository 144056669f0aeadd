"""Waiting for something to become so, without a guess of how long that takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from select import select
from threading import Thread
from typing import IO, AnyStr

PATIENCE = 180.0  # seconds; run out of only where something is wrong, however slow or busy the machine is

PATIENT = {"TIDEMILL_REDIS_TIMEOUT": f"{PATIENCE:g}", "TIDEMILL_REQUEST_TIMEOUT": f"{PATIENCE:g}"}
"""What processes that a test starts find in their environment: the second that users wait for Redis is soon over."""


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE, every: float = 0.01) -> None:
    """Ask again and again until it is so; fail if it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It did not become so in time."
        time.sleep(every)


def wait_for_end_of(*running: Thread | BaseProcess) -> None:
    """Wait for threads or processes to end; fail if one never does."""
    for one in running:
        one.join(PATIENCE)
        assert not one.is_alive(), f"{one.name} did not end in time."


def first_line_of(output: IO[AnyStr] | None) -> AnyStr:
    """The first line that a process says on a pipe; fail if it says none."""
    assert output is not None
    assert select([output], [], [], PATIENCE)[0], "Nothing was said in time."
    return output.readline()
