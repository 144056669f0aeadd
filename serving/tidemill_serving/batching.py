"""Micro-batching: requests that arrive while earlier ones are being answered are answered together.

Nobody waits for a batch to fill. An idle server answers a single request at once; under load the requests that piled
up meanwhile share one round trip to the store and one call of the model, which cost hardly more for many rows than
for one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tidemill.errors import TidemillError
from tidemill_serving.problems import DeadlineError, OverloadedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Waiting(Generic[Item, Answer]):
    __slots__ = ("future", "item", "weight")

    def __init__(self, item: Item, weight: int, future: asyncio.Future[Answer]) -> None:
        self.item, self.weight, self.future = item, weight, future


class Batcher(Generic[Item, Answer]):
    """Answers items in batches, in the order they came. To be used from one event loop.

    Args:
        run: answers a batch, one answer for each item.
        largest: the weight a batch may reach before the next item waits for the next batch.
        pending: how many items may wait at once; beyond that `submit` raises OverloadedError.
        seconds: how long an item may take; then `submit` raises DeadlineError and the item is not begun any more.
        lanes: how many batches may be under way at once.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[list[Answer]]],
        *,
        largest: int,
        pending: int,
        seconds: float,
        lanes: int = 1,
    ) -> None:
        self._run, self._largest, self._most_pending = run, largest, pending
        self._seconds, self._lanes = seconds, lanes
        self._queue: deque[_Waiting[Item, Answer]] = deque()
        self._pending = 0
        self._busy: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Items that are waiting or being answered."""
        return self._pending

    async def submit(self, item: Item, *, weight: int = 1) -> Answer:
        """The item's answer. Raises what `run` raised for it, OverloadedError or DeadlineError."""
        if self._pending >= self._most_pending:
            raise OverloadedError(
                f"{self._pending:,} requests are waiting already.", hint="Try again in a second, or add a replica."
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        alarm = loop.call_later(self._seconds, self._expire, future)
        self._queue.append(_Waiting(item, weight, future))
        self._pending += 1
        if len(self._busy) < self._lanes:
            task = loop.create_task(self._drain())
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        try:
            return await future
        finally:
            self._pending -= 1
            alarm.cancel()

    def _expire(self, future: asyncio.Future[Answer]) -> None:
        if not future.done():
            future.set_exception(
                DeadlineError(
                    f"No answer was ready within {self._seconds:g} s.", hint="Ask for fewer rows, or add a replica."
                )
            )

    async def _drain(self) -> None:
        while batch := self._next_batch():
            await self._answer(batch)

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        batch: list[_Waiting[Item, Answer]] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= self._largest):
            waiting = self._queue.popleft()
            if not waiting.future.done():
                batch.append(waiting)
                weight += waiting.weight
        return batch

    async def _answer(self, batch: list[_Waiting[Item, Answer]]) -> None:
        try:
            answers = await self._run([waiting.item for waiting in batch])
        except Exception as error:  # noqa: BLE001 - every waiting request is told, whatever it was
            await self._blame(batch, error)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(answer)

    async def _blame(self, batch: list[_Waiting[Item, Answer]], error: Exception) -> None:
        """One bad item must not fail the others: a batch that was refused is asked again one by one."""
        if len(batch) > 1 and isinstance(error, TidemillError) and _is_about_one(error):
            for waiting in batch:
                await self._answer([waiting])
            return
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_exception(error)


def _is_about_one(error: TidemillError) -> bool:
    from tidemill.errors import DefinitionError, InputError

    return isinstance(error, InputError | DefinitionError)
