"""Sending ahead: commands go out while the replies of earlier ones are still due."""

from __future__ import annotations

import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.confirmation import Confirmation
from tidemill.online.connection import Connection
from tidemill.online.courtesy import QUESTION, Watch
from tidemill.online.redis_refusals import accepted, gone

_PARTS_WAITING = 2  # of a stream: one to send when the one at work is done, and no more in memory
_PIECES_AHEAD = 2  # unanswered ones: while Redis works on one, the next is there
_BYTES_TOGETHER = 64_000  # handed to the system at once where it sees to it that few of them are on the way

Sendable = bytes | memoryview


class ReplyStream:
    """A connection on which commands are sent while the replies of earlier ones are still due.

    A thread of its own sends and receives, so that the caller prepares what comes next meanwhile. No more than a few
    pieces are unanswered at any time: whoever else asks Redis waits for those at most, however much is still to come.
    On a unix socket the system can see to that: with `ahead` no more than about so many bytes wait for Redis, and the
    thread need not be awake whenever Redis has done a piece. With a `watch`, all of that gives way to others who read:
    see `courtesy`. Use as a context manager; `finish` returns all replies in order. Raises OnlineStoreUnavailableError
    like `RespClient`.
    """

    def __init__(
        self,
        connection: Connection,
        confirmation: Confirmation,
        *,
        ahead: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._connection, self._confirmation, self._watch = connection, confirmation, watch
        self._due = deque[int | None]()  # replies to come; None stands for the answer to the watch's question
        self._is_bounded = ahead is not None and connection.socket.family == socket.AF_UNIX
        if ahead is not None and self._is_bounded:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ahead // 2)  # Linux takes twice as much
        self._replies: list[Any] = []
        self._failure: BaseException | None = None
        self._parts: queue.Queue[Sequence[tuple[Sendable, int]] | None] = queue.Queue(_PARTS_WAITING)
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="tidemill-stream", daemon=True)
        self._thread.start()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._connection.close()

    @property
    def gives_way(self) -> bool:
        """Whether others read, so that what is sent should keep Redis busy for a moment only."""
        return self._watch is not None and self._watch.gives_way

    def send(self, packed: Sendable, replies: int) -> None:
        self.send_all([(packed, replies)])

    def send_all(self, pieces: Sequence[tuple[Sendable, int]]) -> None:
        """Commands in pieces, each with how many replies it gets. Waits while enough is waiting to be sent,
        or in turns until it is answered."""
        self._raise_failure()
        self._parts.put(pieces)
        if self.gives_way:
            self._parts.join()

    def finish(self, *, checked: bool = True) -> list[Any]:
        """All replies. A command that Redis refused raises, or with `checked=False` is among them as an exception.

        Raises OnlineStoreUnavailableError where too few replicas hold what was written.
        """
        if self._confirmation.replies:
            self.send(self._confirmation.packed, self._confirmation.replies)
        self._end()
        self._raise_failure()
        replies = self._confirmation.checked(self._replies)
        return accepted(replies) if checked else replies

    def _end(self) -> None:
        if not self._ended:
            self._parts.put(None)
            self._ended = True  # not before: whoever is interrupted while there is no room must ask for the end again
        self._thread.join()

    def _work(self) -> None:
        for pieces in iter(self._parts.get, None):
            self._attempt(partial(self._exchange, pieces))
            self._parts.task_done()
        self._attempt(self._receive_all)

    def _attempt(self, step: Callable[[], None]) -> None:
        """A step, unless one has failed: then what comes is only taken, so that nobody waits for room."""
        if self._failure is not None:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's to raise
            self._failure = error

    def _exchange(self, pieces: Sequence[tuple[Sendable, int]]) -> None:
        for packed, replies in _together(pieces, self._bytes_together):
            watch = self._watch
            if watch is not None and watch.asks():
                self._connection.send(QUESTION)
                self._due.append(None)
            if watch is not None and watch.gives_way:
                began = watch.now()
                self._send(packed, replies, ahead=0)
                watch.took(len(packed), watch.now() - began)
            else:
                self._send(packed, replies, ahead=_PIECES_AHEAD - 1)

    def _send(self, packed: Sendable, replies: int, *, ahead: int) -> None:
        """Send, and then receive until no more than `ahead` pieces are unanswered."""
        self._connection.send(packed)
        self._due.append(replies)
        while len(self._due) > ahead:
            self._receive()

    def _receive(self) -> None:
        replies, watch = self._due.popleft(), self._watch
        if watch is not None and replies is None:
            watch.hear(*self._connection.receive(1))
            return
        found = self._connection.receive(replies or 0)
        self._replies += found
        if watch is not None:
            watch.count(found)

    def _receive_all(self) -> None:
        while self._due:
            self._receive()

    def _bytes_together(self) -> int:
        if self._watch is not None and self._watch.gives_way:
            return self._watch.turn
        return _BYTES_TOGETHER if self._is_bounded else 0

    def _raise_failure(self) -> None:
        if isinstance(self._failure, TimeoutError):
            raise OnlineStoreUnavailableError("Redis stopped answering during a load.") from self._failure
        if self._failure is not None:
            raise gone(self._failure) from self._failure


def _together(pieces: Sequence[tuple[Sendable, int]], least: Callable[[], int]) -> Iterator[tuple[Sendable, int]]:
    """Small pieces as larger ones, of at least so many bytes."""
    group: list[Sendable] = []
    size = replies = 0
    for packed, count in pieces:
        group.append(packed)
        size, replies = size + len(packed), replies + count
        if size >= least():
            yield b"".join(group) if len(group) > 1 else packed, replies
            group, size, replies = [], 0, 0
    if group:
        yield b"".join(group), replies
