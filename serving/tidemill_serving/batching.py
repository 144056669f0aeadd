"""Micro-batching: requests that arrive while earlier ones are being answered are answered together.

Nobody waits for a batch to fill. An idle server answers a single request at once; under load the requests that piled
up meanwhile share one round trip to the store and one call of the model, which cost hardly more for many rows than
for one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from tidemill.errors import ConflictError, DefinitionError, InputError, StaleFeaturesError, TidemillError
from tidemill_serving.limits import Limits
from tidemill_serving.problems import DeadlineError, OverloadedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LARGEST_BATCH = 400  # rows: of four requests of a hundred, of which each costs a sixth less than of two
_LANES = 2
_LANES_ALONE = 8
_ADVICE = "Try again in a second, or add a replica."

Work = Callable[[], Awaitable[Answer]]


class _Waiting(Generic[Item, Answer]):
    __slots__ = ("due", "future", "item", "kind", "weight")

    def __init__(self, item: Item, weight: int, kind: Hashable, future: asyncio.Future[Answer], due: float) -> None:
        self.item, self.weight, self.kind, self.future, self.due = item, weight, kind, future, due


class Batcher(Generic[Item, Answer]):
    """Answers items in batches, in the order they came. To be used from one event loop.

    Args:
        run: answers a batch, one answer for each item.
        largest: the weight a batch may reach before the next item waits for the next batch.
        pending: how many items may wait at once; beyond that `submit` raises OverloadedError.
        heaviest: the weight they may have together, where another one waits already; no limit if not given.
        seconds: how long an item may take; then `submit` raises DeadlineError and the item is not begun any more.
        lanes: how many batches may be under way at once.
        finishes: whether an item that was begun is waited for, however long that takes: for writes, of which whoever
            asked must be told what became of them.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[list[Answer]]],
        *,
        largest: int,
        pending: int,
        seconds: float,
        heaviest: int | None = None,
        lanes: int = 1,
        finishes: bool = False,
    ) -> None:
        self._run, self._largest, self._most_pending, self._heaviest = run, largest, pending, heaviest
        self._seconds, self._lanes, self._finishes = seconds, lanes, finishes
        self._queue: deque[_Waiting[Item, Answer]] = deque()
        self._unanswered: deque[_Waiting[Item, Answer]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._pending = self._weight = 0
        self._running = 0
        self._busy: set[asyncio.Task[None]] = set()  # held, since a loop forgets tasks that nobody holds

    @classmethod
    def of_requests(cls, run: Callable[[list[Item]], Awaitable[list[Answer]]], limits: Limits) -> Batcher[Item, Answer]:
        """For requests that are weighed by their rows, within the limits of a server."""
        return cls(
            run,
            largest=_LARGEST_BATCH,
            pending=limits.pending,
            seconds=limits.request_seconds,
            heaviest=limits.pending_rows,
            lanes=_LANES,
        )

    @classmethod
    def of_single_requests(cls, limits: Limits) -> Batcher[Work[Answer], Answer]:
        """For requests that share nothing, each submitted as the work that answers it, with a kind of its own."""

        async def run(works: list[Work[Answer]]) -> list[Answer]:
            return [await work() for work in works]

        return Batcher(
            run,
            largest=_LARGEST_BATCH,
            pending=limits.pending,
            seconds=limits.request_seconds,
            heaviest=limits.pending_rows,
            lanes=_LANES_ALONE,
        )

    @property
    def pending(self) -> int:
        """Items that are waiting or being answered."""
        return self._pending

    async def submit(self, item: Item, *, weight: int = 1, kind: Hashable = None) -> Answer:
        """The item's answer. Items of different kinds never share a batch.

        Raises what `run` raised for it, OverloadedError or DeadlineError.
        """
        if self._pending >= self._most_pending:
            raise OverloadedError(f"{self._pending:,} requests are waiting already.", hint=_ADVICE)
        if self._heaviest is not None and self._weight > 0 and self._weight + weight > self._heaviest:
            raise OverloadedError(f"Requests with {self._weight:,} rows are waiting already.", hint=_ADVICE)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        waiting = _Waiting(item, weight, kind, future, loop.time() + self._seconds)
        self._queue.append(waiting)
        self._unanswered.append(waiting)
        self._pending += 1
        self._weight += weight
        if self._alarm is None:
            self._alarm = loop.call_at(waiting.due, self._expire)
        if self._running < self._lanes:
            self._running += 1
            task = loop.create_task(self._drain())
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        try:
            return await future
        finally:
            self._pending -= 1
            self._weight -= weight
            while self._unanswered and self._unanswered[0].future.done():
                self._unanswered.popleft()

    def _expire(self) -> None:
        """Tell whoever waited too long, and look again when the next one's time is up: one alarm serves all."""
        loop = asyncio.get_running_loop()
        self._alarm = None
        while self._unanswered and (self._unanswered[0].future.done() or self._unanswered[0].due <= loop.time()):
            future = self._unanswered.popleft().future
            if not future.done():
                future.set_exception(
                    DeadlineError(
                        f"No answer was ready within {self._seconds:g} s.", hint="Ask for fewer rows, or add a replica."
                    )
                )
        if self._unanswered:
            self._alarm = loop.call_at(self._unanswered[0].due, self._expire)

    async def _drain(self) -> None:
        """Answer until nothing waits. The lane is given up in the same step that found the queue empty: an item that
        came a moment later must find it free, or nobody would ever begin it."""
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._running -= 1

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        batch: list[_Waiting[Item, Answer]] = []
        weight = 0
        while self._queue:
            waiting = self._queue[0]
            if batch and (weight + waiting.weight > self._largest or waiting.kind != batch[0].kind):
                break
            self._queue.popleft()
            if not waiting.future.done():
                batch.append(waiting)
                weight += waiting.weight
        if self._finishes:  # what is begun was the first to come of all that are not answered
            while self._unanswered and (self._unanswered[0].future.done() or self._unanswered[0] in batch):
                self._unanswered.popleft()
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
    """Whether one item may be to blame: its values, the age of what it asks for, or what it meets in the store."""
    return isinstance(error, InputError | DefinitionError | StaleFeaturesError | ConflictError)
