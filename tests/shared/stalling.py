"""A process that stands still, and goes on when it is told to: for exactly as long as a test needs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stalled(pid: int | None) -> Iterator[None]:
    """Within, the process does nothing: it accepts no request and answers none."""
    assert pid is not None, "there is no such process"
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
