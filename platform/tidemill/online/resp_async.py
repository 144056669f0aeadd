"""Talking to Redis from asyncio: one connection for each loop, on which concurrent requests go out in one write."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.confirmation import Confirmation
from tidemill.online.connection import MORE, Connection
from tidemill.online.redis_address import connect
from tidemill.online.redis_refusals import ConnectionLostError, RedisReplyError, accepted, gone, too_slow
from tidemill.online.resp import Script, is_unknown_script, pack_command


class AsyncRespClient:
    """Sends prepared commands and returns the replies, like `RespClient`, for any number of tasks at once."""

    def __init__(self, address: str, *, timeout: float = 1.0, replicas: int = 0) -> None:
        """`replicas` is how many replicas must hold a write before `run` answers."""
        self._confirmation = Confirmation(replicas, seconds=timeout / 2)
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

    async def run(self, script: Script, command: bytes, *, retry: bool = True) -> Any:
        """The reply to an EVALSHA of a script that writes: when enough replicas hold what was written."""
        try:
            return await self._write(command, retry)
        except RedisReplyError as error:
            if not is_unknown_script(error):
                raise
        await self.execute(pack_command("SCRIPT", "LOAD", script.source), 1)
        return await self._write(command, retry)

    async def _write(self, command: bytes, retry: bool) -> Any:
        confirmation = self._confirmation
        found = await self.execute(command + confirmation.packed, 1 + confirmation.replies, retry=retry)
        return confirmation.checked(found)[0]

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
            loop.run_in_executor(None, Connection, self._factory), timeout=2 * self._timeout
        )
        if connection.is_encrypted:
            return await _TlsProtocol.over(connection, loop, self._timeout)
        raw = connection.detach()
        _, protocol = await loop.create_connection(lambda: _Protocol(loop, self._timeout), sock=raw)
        return protocol


class _Protocol(asyncio.Protocol):
    """Requests in, replies out, in order. What is asked within one turn of the loop is written at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop, self._timeout = loop, timeout
        self._reader = hiredis.Reader(notEnoughData=MORE)
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
            if reply is MORE:
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

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        super().__init__(loop, timeout)
        self._connection = connection
        self._turn = asyncio.Lock()

    @classmethod
    async def over(cls, connection: Connection, loop: asyncio.AbstractEventLoop, timeout: float) -> _TlsProtocol:
        return cls(connection, loop, timeout)

    def request(self, packed: bytes, replies: int) -> asyncio.Future[list[Any]]:
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
