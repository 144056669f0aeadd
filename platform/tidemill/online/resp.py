"""Talking to Redis with as little between us and the socket as Python allows.

Commands are bytes prepared by the caller; replies are parsed by hiredis. redis-py opens the connections (unix socket,
TCP, TLS, passwords, Sentinel) and is not in the way afterwards. See https://redis.io/docs/reference/protocol-spec/
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.redis_address import connect
from tidemill.online.redis_refusals import ConnectionLostError, RedisReplyError, accepted, gone, too_slow

_CHUNK = 65_536
_LOAD_TIMEOUT = 60.0  # seconds: during a load Redis may pause for its disk, and nobody waits for an answer
_GONE = (ConnectionError, redis.ConnectionError, EOFError, OSError)

_PARTS_WAITING = 2  # of a stream: one to send when the one at work is done, and no more in memory
_PIECES_AHEAD = 2  # unanswered ones: while Redis works on one, the next is there

Part = bytes | str | int | float
Sendable = bytes | memoryview


def pack_command(*parts: Part) -> bytes:
    """One command as bytes."""
    return hiredis.pack_command(parts)


class RespClient:
    """Sends prepared commands and returns the replies. Thread-safe: each call has a connection to itself.

    Raises OnlineStoreUnavailableError when Redis is gone, slower than `timeout` seconds, loading, full or read-only;
    the next call tries again.
    """

    def __init__(self, address: str, *, timeout: float = 1.0) -> None:
        self._address, self._timeout = address, timeout
        self._factory = connect(address, timeout=timeout)
        self._idle: deque[_Connection] = deque()
        self._pid = os.getpid()

    def execute(self, packed: bytes, replies: int, *, retry: bool = True, timeout: float | None = None) -> list[Any]:
        """Send commands and return one reply for each of the `replies` expected, within `timeout` seconds if given.

        A connection that turns out dead is replaced and the commands sent once more, unless `retry` is False: then a
        command that must not happen twice fails instead.
        """
        if replies == 0:
            return []
        try:
            return accepted(self._exchange(packed, replies, retry=retry, timeout=timeout or self._timeout))
        except (TimeoutError, redis.TimeoutError) as error:
            raise too_slow(timeout or self._timeout) from error
        except (redis.RedisError, OSError) as error:
            raise gone(error) from error
        except OnlineStoreUnavailableError:
            self._drop_idle()  # it may not be the master any more, and these connections would go on asking it
            raise

    def call(self, *parts: Part, retry: bool = True) -> Any:
        return self.execute(pack_command(*parts), 1, retry=retry)[0]

    def pipeline(self, commands: Sequence[Sequence[Part]], *, retry: bool = True) -> list[Any]:
        return self.execute(b"".join(pack_command(*parts) for parts in commands), len(commands), retry=retry)

    def stream(self) -> ReplyStream:
        """A connection of one's own for a bulk load: send a little ahead, count the replies later."""
        try:
            connection = _Connection(self._factory)
            connection.socket.settimeout(max(self._timeout, _LOAD_TIMEOUT))
            return ReplyStream(connection)
        except (redis.RedisError, OSError) as error:
            raise gone(error) from error

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        self._factory.close()

    def _exchange(self, packed: bytes, replies: int, *, retry: bool, timeout: float) -> list[Any]:
        connection, fresh = self._take()
        if timeout != self._timeout:
            connection.socket.settimeout(timeout)
        try:
            found = connection.exchange(packed, replies)
        except TimeoutError:
            connection.close()
            raise
        except _GONE:
            connection.close()
            self._drop_idle()
            if fresh or not retry:
                raise
            connection = _Connection(self._factory)
            connection.socket.settimeout(timeout)
            found = connection.exchange(packed, replies)
        if timeout != self._timeout:
            connection.socket.settimeout(self._timeout)
        self._idle.append(connection)
        return found

    def _take(self) -> tuple[_Connection, bool]:
        if self._pid != os.getpid():  # a forked child must not talk on its parent's connections
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop(), False
        except IndexError:
            return _Connection(self._factory), True

    def _drop_idle(self) -> None:
        """What one connection lost, the others lost too."""
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


class Script:
    """A Lua script, run by its digest and loaded when Redis does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - it is Redis's name for the script

    def run(self, client: RespClient, keys: Sequence[Part], arguments: Sequence[Part], *, retry: bool = True) -> Any:
        command = pack_command("EVALSHA", self.digest, len(keys), *keys, *arguments)
        try:
            return client.execute(command, 1, retry=retry)[0]
        except RedisReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        self.load(client)
        return client.execute(command, 1, retry=retry)[0]

    def load(self, client: RespClient) -> None:
        client.execute(pack_command("SCRIPT", "LOAD", self.source), 1, timeout=_LOAD_TIMEOUT)


class _Connection:
    """One socket and its parser."""

    def __init__(self, factory: redis.Redis) -> None:
        self._origin: Any = factory.connection_pool.make_connection()
        self._origin.connect()
        self.socket: socket.socket = self._origin._sock
        self._reader = hiredis.Reader(notEnoughData=_MORE)

    def exchange(self, packed: bytes, replies: int) -> list[Any]:
        self.socket.sendall(packed)
        return self.receive(replies)

    def receive(self, replies: int) -> list[Any]:
        reader, receive, found = self._reader, self.socket.recv, []
        while len(found) < replies:
            reply = reader.gets()
            if reply is not _MORE:
                found.append(reply)
                continue
            data = receive(_CHUNK)
            if not data:
                raise ConnectionLostError("Redis closed the connection")
            reader.feed(data)
        return found

    def detach(self) -> socket.socket:
        """The socket for somebody else's use. redis-py would shut it down, so it must forget it."""
        family = self.socket.family
        raw = socket.socket(family, socket.SOCK_STREAM, fileno=self.socket.detach())
        raw.setblocking(False)
        self._origin._sock = None
        self._origin.disconnect()
        return raw

    def close(self) -> None:
        self._origin.disconnect()


_MORE = object()


class ReplyStream:
    """A connection on which commands are sent while the replies of earlier ones are still due.

    A thread of its own sends and receives, so that the caller prepares what comes next meanwhile. No more than a few
    pieces are unanswered at any time: whoever else asks Redis waits for those at most, however much is still to come.
    Use as a context manager; `finish` returns all replies in order. Raises OnlineStoreUnavailableError like
    `RespClient`.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
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

    def send(self, packed: Sendable, replies: int) -> None:
        self.send_all([(packed, replies)])

    def send_all(self, pieces: Sequence[tuple[Sendable, int]]) -> None:
        """Commands in pieces, each with how many replies it gets. Waits while enough is waiting to be sent."""
        self._raise_failure()
        self._parts.put(pieces)

    def finish(self, *, checked: bool = True) -> list[Any]:
        """All replies. A command that Redis refused raises, or with `checked=False` is among them as an exception."""
        self._end()
        self._raise_failure()
        return accepted(self._replies) if checked else self._replies

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._parts.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            self._exchange()
        except (OSError, ConnectionError) as error:
            self._failure = error
            while self._parts.get() is not None:  # so that nobody waits for room
                pass

    def _exchange(self) -> None:
        connection, due = self._connection, deque[int]()
        while (pieces := self._parts.get()) is not None:
            for packed, replies in pieces:
                connection.socket.sendall(packed)
                due.append(replies)
                if len(due) >= _PIECES_AHEAD:
                    self._replies += connection.receive(due.popleft())
        self._replies += connection.receive(sum(due))

    def _raise_failure(self) -> None:
        if isinstance(self._failure, TimeoutError):
            raise OnlineStoreUnavailableError("Redis stopped answering during a load.") from self._failure
        if self._failure is not None:
            raise gone(self._failure) from self._failure


class AsyncRespClient:
    """The same for asyncio: one connection for each event loop, on which concurrent requests go out in one write."""

    def __init__(self, address: str, *, timeout: float = 1.0) -> None:
        self._factory = connect(address, timeout=timeout)
        self._timeout = timeout
        self._protocols: WeakKeyDictionary[asyncio.AbstractEventLoop, _Protocol] = WeakKeyDictionary()
        self._opening: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def execute(self, packed: bytes, replies: int, *, retry: bool = True) -> list[Any]:
        """Send commands and return their replies. Raises OnlineStoreUnavailableError like `RespClient`."""
        if replies == 0:
            return []
        try:
            protocol, fresh = await self._protocol()
            try:
                return accepted(await protocol.request(packed, replies))
            except ConnectionLostError:
                if fresh or not retry:
                    raise
            protocol, _ = await self._protocol()
            return accepted(await protocol.request(packed, replies))
        except (TimeoutError, redis.TimeoutError) as error:
            raise too_slow(self._timeout) from error
        except (redis.RedisError, OSError) as error:
            raise gone(error) from error
        except OnlineStoreUnavailableError:
            await self.close()  # it may not be the master any more, and this connection would go on asking it
            raise

    async def close(self) -> None:
        protocol = self._protocols.pop(asyncio.get_running_loop(), None)
        if protocol is not None:
            protocol.close()

    async def _protocol(self) -> tuple[_Protocol, bool]:
        loop = asyncio.get_running_loop()
        protocol = self._protocols.get(loop)
        if protocol is not None and protocol.usable:
            return protocol, False
        lock = self._opening.setdefault(loop, asyncio.Lock())
        async with lock:
            protocol = self._protocols.get(loop)
            if protocol is not None and protocol.usable:
                return protocol, True
            protocol = await self._open(loop)
            self._protocols[loop] = protocol
            return protocol, True

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Protocol:
        """redis-py greets the server (TLS, password, database) on a thread; then the loop takes over the socket."""
        connection = await asyncio.wait_for(
            loop.run_in_executor(None, _Connection, self._factory), timeout=2 * self._timeout
        )
        if hasattr(connection.socket, "_sslobj"):
            return await _TlsProtocol.over(connection, loop, self._timeout)
        raw = connection.detach()
        _, protocol = await loop.create_connection(lambda: _Protocol(loop, self._timeout), sock=raw)
        return protocol


class _Protocol(asyncio.Protocol):
    """Requests in, replies out, in order. What is asked within one turn of the loop is written at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop, self._timeout = loop, timeout
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._found: list[Any] = []
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def request(self, packed: bytes, replies: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.usable:
            future.set_exception(ConnectionLostError("Redis closed the connection"))
            return future
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(packed)
        self._waiting.append((future, replies, self._loop.time() + self._timeout))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._check_time)
        return future

    def data_received(self, data: bytes) -> None:
        reader, waiting, found = self._reader, self._waiting, self._found
        reader.feed(data)
        while waiting:
            reply = reader.gets()
            if reply is _MORE:
                return
            found.append(reply)
            if len(found) == waiting[0][1]:
                future = waiting.popleft()[0]
                if not future.done():
                    future.set_result(found)
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
        deadline = self._waiting[0][2]
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
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_exception(error)


class _TlsProtocol(_Protocol):
    """Over TLS the socket stays redis-py's: the loop cannot take over a TLS session, so a thread exchanges on it."""

    def __init__(self, connection: _Connection, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        super().__init__(loop, timeout)
        self._connection = connection
        self._turn = asyncio.Lock()

    @classmethod
    async def over(cls, connection: _Connection, loop: asyncio.AbstractEventLoop, timeout: float) -> _TlsProtocol:
        return cls(connection, loop, timeout)

    def request(self, packed: bytes, replies: int) -> asyncio.Future[list[Any]]:
        return self._loop.create_task(self._exchange(packed, replies))

    async def _exchange(self, packed: bytes, replies: int) -> list[Any]:
        async with self._turn:
            try:
                return await self._loop.run_in_executor(None, self._connection.exchange, packed, replies)
            except OSError:
                self.usable = False
                raise

    def close(self) -> None:
        super().close()
        self._connection.close()
