"""An event loop whose time passes only while nothing else is to be done: timeouts are exact on any machine."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class _Jumping(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Where the loop would sleep until its next timer, that time has passed at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_in_virtual_time(scenario: Coroutine[Any, Any, Answer]) -> Answer:
    """Like `asyncio.run`. For what waits for nothing but timers: a thread's work would seem to take for ever."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(scenario)
