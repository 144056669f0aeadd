"""Few events of several callers, written in one step (group commit).

While Redis works on a script, other callers of the process arrive with events of the same stream. They wait, and what
waits goes together in the next script: sixteen callers cost Redis and us little more than one. Whoever finds nobody at
work writes at once, so that a single caller waits for nothing. Each is answered when its own events are in Redis.

What is checked before (`push_few`) is checked for each caller alone. Where Redis refuses the events of several together
(one meets a key of another kind, a view's tiles are being rebuilt) nothing is written, and each is tried alone.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import TypeVar

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.push_few import FewRows

_MOST_ROWS = 64
_APART = 1_000_000  # microseconds: callers whose presents are further apart have nothing to do with each other


class Waiting:
    """The events of one caller, at its present (int microseconds), and what became of them: `repeated` or `error`."""

    __slots__ = ("at", "error", "repeated", "rows")

    def __init__(self, rows: FewRows, at: int) -> None:
        self.rows, self.at = rows, at
        self.repeated = 0
        self.error: Exception | None = None

    def answer(self) -> int:
        """How many of the events had been counted before. Raises what writing them raised."""
        if self.error is not None:
            raise self.error
        return self.repeated


Caller = TypeVar("Caller", bound=Waiting)


def next_batch(queue: deque[Caller]) -> list[Caller]:
    """Take from the queue what is to be written together, in order of arrival."""
    batch = [queue.popleft()]
    size, at = len(batch[0].rows), batch[0].at
    while queue and abs(queue[0].at - at) <= _APART and size + len(queue[0].rows) <= _MOST_ROWS:
        batch.append(queue.popleft())
        size += len(batch[-1].rows)
    return batch


def joined(batch: Sequence[Waiting]) -> tuple[FewRows, int]:
    """All rows, and the latest of the callers' presents: by then the times of all of them have come."""
    if len(batch) == 1:
        return batch[0].rows, batch[0].at
    rows = FewRows(
        event=[event for one in batch for event in one.rows.event],
        known=[known for one in batch for known in one.rows.known],
        values=[values for one in batch for values in one.rows.values],
    )
    return rows, max(one.at for one in batch)


def hand_out(batch: Sequence[Waiting], repeated: Iterable[int]) -> None:
    """Tell each caller how many of its rows were repeats, given which of all were."""
    among = set(repeated)
    first = 0
    for one in batch:
        last = first + len(one.rows)
        one.repeated = sum(row in among for row in range(first, last)) if among else 0
        first = last


def may_be_tried_alone(error: Exception, batch: Sequence[Waiting]) -> bool:
    """Whether the events of one caller may have kept those of the others from being written."""
    return len(batch) > 1 and not isinstance(error, OnlineStoreUnavailableError)


class PushesTogether:
    """Writes few events for any number of threads.

    Args:
        write: writes rows at an instant (int microseconds), all or nothing; returns which were repeats.
    """

    def __init__(self, write: Callable[[FewRows, int], set[int]]) -> None:
        self._write = write
        self._forget()

    def write(self, rows: FewRows, at: int) -> int:
        """Write a caller's events, with those of others where that saves time; returns how many were repeats.

        Raises what `write` raises for these events.
        """
        if self._pid != os.getpid():  # in a forked child nobody is at work, whatever it was in its parent
            self._forget()
        mine = _WaitingThread(rows, at)
        with self._guard:
            self._queue.append(mine)
            mine.leads, self._at_work = not self._at_work, True
        if not mine.leads:
            self._wait(mine)
        if mine.leads:
            self._lead()
        return mine.answer()

    def _wait(self, mine: _WaitingThread) -> None:
        """Until the events are written, or it is this thread's turn to write."""
        try:
            mine.turn.acquire()
        except BaseException:  # Ctrl-C: nobody must wait for this thread
            with self._guard:
                if mine in self._queue:
                    self._queue.remove(mine)
            if mine.leads:
                self._pass_on()
            raise

    def _lead(self) -> None:
        """Write what waits, this thread's own events first among them; then let the next one lead."""
        with self._guard:
            batch = next_batch(self._queue)
        try:
            self._write_all(batch)
        finally:
            for one in batch[1:]:
                one.turn.release()
            self._pass_on()

    def _pass_on(self) -> None:
        with self._guard:
            follower = self._queue[0] if self._queue else None
            self._at_work = follower is not None
            if follower is not None:
                follower.leads = True
                follower.turn.release()

    def _write_all(self, batch: Sequence[Waiting]) -> None:
        rows, at = joined(batch)
        try:
            hand_out(batch, self._write(rows, at))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to whoever waits for it
            if may_be_tried_alone(error, batch):
                for one in batch:
                    self._write_all([one])
            else:
                _tell(batch, error)
        except BaseException as error:
            _tell(batch, _interrupted(error))
            raise

    def _forget(self) -> None:
        self._pid, self._guard, self._at_work = os.getpid(), Lock(), False
        self._queue: deque[_WaitingThread] = deque()


def _tell(batch: Sequence[Waiting], error: Exception) -> None:
    for one in batch:
        one.error = error


def _interrupted(error: BaseException) -> OnlineStoreUnavailableError:
    return OnlineStoreUnavailableError(
        f"Writing the events was interrupted ({type(error).__name__}); nobody knows whether Redis has them.",
        hint="Push them again: events with an id count once.",
    )


class _WaitingThread(Waiting):
    """`turn` is held until the events are written, or the thread leads."""

    __slots__ = ("leads", "turn")

    def __init__(self, rows: FewRows, at: int) -> None:
        super().__init__(rows, at)
        self.leads, self.turn = False, Lock()
        self.turn.acquire()
