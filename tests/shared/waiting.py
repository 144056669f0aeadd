"""Waiting for something to become so, without a guess of how long that takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 180.0  # seconds; run out of only where something is wrong, however slow or busy the machine is

PATIENT = {"TIDEMILL_REDIS_TIMEOUT": f"{PATIENCE:g}", "TIDEMILL_REQUEST_TIMEOUT": f"{PATIENCE:g}"}
"""What processes that a test starts find in their environment: the second that users wait for Redis is soon over."""


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE, every: float = 0.01) -> None:
    """Ask again and again until it is so; fail if it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It did not become so in time."
        time.sleep(every)
