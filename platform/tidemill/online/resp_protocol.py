"""One connection to Redis in an event loop: what is asked on it, and to whom what comes belongs."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from itertools import count
from typing import Any

import hiredis

from tidemill.online.connection import MORE, Connection
from tidemill.online.redis_refusals import ConnectionLostError

_NUMBER = b"%016d\r\n"
_NUMBER_SIZE = len(_NUMBER % 0)


class ReplyEnds:
    """Replies that end what was asked before them, and are found without looking at anything else: nobody has stored
    their text, which is made up for one connection. Each has a number of its own."""

    def __init__(self) -> None:
        text = secrets.token_hex(16).encode()
        self._start = b"$%d\r\n%s" % (len(text) + _NUMBER_SIZE - 2, text)
        self._numbers = count()

    def next(self) -> bytes:
        return self._start + _NUMBER % next(self._numbers)

    def command(self, reply: bytes) -> bytes:
        """What has this reply."""
        return b"*2\r\n$4\r\nECHO\r\n" + reply


class _Due:
    """A request on its way. With an `end` its replies are taken as the bytes they come in, up to that; `replies` count
    it too."""

    __slots__ = ("deadline", "end", "future", "has_end", "replies")

    def __init__(self, future: asyncio.Future[Any], replies: int, deadline: float, end: bytes) -> None:
        self.future, self.deadline, self.end = future, deadline, end
        self.has_end = bool(end)
        self.replies = replies + self.has_end

    def answer(self, found: list[Any] | bytes) -> None:
        if not self.future.done():
            self.future.set_result(found[:-1] if self.has_end and isinstance(found, list) else found)


class RespProtocol(asyncio.Protocol):
    """Requests in, replies out, in order. What is asked within one turn of the loop is written at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, ends: ReplyEnds | None = None) -> None:
        self._loop, self._timeout, self._ends = loop, timeout, ends
        self._reader = hiredis.Reader(notEnoughData=MORE)
        self._waiting: deque[_Due] = deque()
        self._found: list[Any] = []
        self._bytes = b""
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def request(self, packed: bytes, replies: int, as_bytes: bool = False) -> asyncio.Future[Any]:
        """A list of the replies, or with `as_bytes` their bytes, where it can be told where they end."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.usable:
            future.set_exception(ConnectionLostError("Redis closed the connection"))
            return future
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(packed)
        end = b""
        if as_bytes and self._ends is not None:
            end = self._ends.next()
            self._outbox.append(self._ends.command(end))
        self._waiting.append(_Due(future, replies, self._loop.time() + self._timeout, end))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._check_time)
        return future

    def data_received(self, data: bytes) -> None:
        while data and self._waiting and self._waiting[0].end:
            data = self._collect(data, self._waiting[0])
        if data:
            self._parse(data)

    def _collect(self, data: bytes, due: _Due) -> bytes:
        """Keep bytes until their end is there. What is returned comes after it, or is all for the parser."""
        known = len(self._bytes) - len(due.end)  # no end begins before
        found, self._bytes = self._bytes + data, b""
        place = found.find(due.end[:-_NUMBER_SIZE], max(0, known))
        if place >= 0 and found.startswith(due.end, place):
            self._waiting.popleft().answer(found[:place])
            return found[place + len(due.end) :]
        is_whole = 0 <= place <= len(found) - len(due.end)
        if is_whole or _ends_in_a_refusal(found):  # the end of a later one: that of this one was refused, or may be
            due.end = b""
            return found
        self._bytes = found
        return b""

    def _parse(self, data: bytes) -> None:
        reader, waiting, found = self._reader, self._waiting, self._found
        reader.feed(data)
        while waiting:
            due = waiting[0]
            if due.end:
                if not reader.has_data():
                    return
                due.end = b""  # the parser has some of the bytes
            reply = reader.gets()
            if reply is MORE:
                return
            found.append(reply)
            if len(found) == due.replies:
                waiting.popleft().answer(found)
                self._found = found = []

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionLostError(str(exc or "Redis closed the connection")))

    def close(self) -> None:
        self._fail(ConnectionLostError("the connection was closed"))
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        packed, self._outbox = b"".join(self._outbox), []
        self._write(packed)

    def _write(self, packed: bytes) -> None:
        if self._transport is not None and self.usable:
            self._transport.write(packed)

    def _check_time(self) -> None:
        """One timer for all requests: only the oldest can be the first to be too late."""
        self._watch = None
        if not self._waiting:
            return
        deadline = self._waiting[0].deadline
        if self._loop.time() >= deadline:
            self._fail(TimeoutError())
            if self._transport is not None:
                self._transport.abort()
        else:
            self._watch = self._loop.call_later(deadline - self._loop.time(), self._check_time)

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(error)


def _ends_in_a_refusal(data: bytes) -> bool:
    """Whether the last line that is there is one."""
    return data[-2:] == b"\r\n" and data.startswith(b"-", data.rfind(b"\n", 0, -2) + 1)


class TlsProtocol(RespProtocol):
    """Over TLS the socket stays redis-py's: the loop cannot take over a TLS session, so a thread exchanges on it."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        super().__init__(loop, timeout)
        self._connection = connection
        self._turn = asyncio.Lock()

    def request(self, packed: bytes, replies: int, as_bytes: bool = False) -> asyncio.Future[Any]:
        del as_bytes  # the thread has parsed them
        return self._loop.create_task(self._exchange(packed, replies))

    async def _exchange(self, packed: bytes, replies: int) -> list[Any]:
        async with self._turn:
            if not self.usable:
                raise ConnectionLostError("the connection was closed")
            exchange = self._loop.run_in_executor(None, self._connection.exchange, packed, replies)
            try:
                return await asyncio.shield(exchange)
            except asyncio.CancelledError:
                await asyncio.wait([exchange])  # its replies must not be the next one's
                raise
            except OSError:
                self.usable = False
                self._connection.close()
                raise

    def close(self) -> None:
        super().close()
        self._connection.close()
