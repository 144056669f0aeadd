"""Writes beside the event loop: in threads of their own, so many at a time and no more waiting than there is room for.

Reads open their connections and models predict on other threads, so that a store that takes writes slowly keeps nobody
else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from tidemill_serving.problems import DeadlineError, OverloadedError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_THREADS = 8
_ADVICE = "Try again in a second, or send more rows at a time."


class WriteLane:
    """Runs blocking writes. To be used from one event loop.

    Args:
        pending: how many writes may wait or be under way; beyond that `run` raises OverloadedError.
        seconds: how long a write may wait to be begun; then `run` raises DeadlineError and it is never begun. One that
            was begun is waited for: whoever asked is told what became of it.
    """

    def __init__(self, *, pending: int, seconds: float) -> None:
        self.pending = 0
        self._most_pending, self._seconds = pending, seconds
        self._threads = ThreadPoolExecutor(_THREADS, "tidemill-write")

    async def run(self, write: Callable[Given, Answer], *args: Given.args, **options: Given.kwargs) -> Answer:
        """What `write` returned. Raises what it raised, OverloadedError or DeadlineError."""
        if self.pending >= self._most_pending:
            raise OverloadedError(f"{self.pending:,} writes are waiting already.", hint=_ADVICE)
        self.pending += 1
        begun = self._threads.submit(write, *args, **options)
        answer: asyncio.Future[Answer] = asyncio.wrap_future(begun)
        answer.add_done_callback(self._leave)
        done, _ = await asyncio.wait([answer], timeout=self._seconds)
        if not done and begun.cancel():
            raise DeadlineError(
                f"Nobody began to write the rows within {self._seconds:g} s; none is written.", hint=_ADVICE
            )
        return await answer

    def close(self) -> None:
        """Wait for what was begun."""
        self._threads.shutdown(wait=True)

    def _leave(self, _done: asyncio.Future[Any]) -> None:
        self.pending -= 1
