"""Talking to Redis from asyncio: one connection for each loop, on which concurrent requests go out in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.confirmation import Confirmation
from tidemill.online.connection import Connection
from tidemill.online.redis_address import connect
from tidemill.online.redis_refusals import ConnectionLostError, RedisReplyError, accepted, gone, too_slow
from tidemill.online.resp import Script, is_unknown_script, pack_command
from tidemill.online.resp_protocol import ReplyEnds, RespProtocol, TlsProtocol


class AsyncRespClient:
    """Sends prepared commands and returns the replies, like `RespClient`, for any number of tasks at once."""

    def __init__(self, address: str, *, timeout: float = 1.0, replicas: int = 0) -> None:
        """`replicas` is how many replicas must hold a write before `run` answers."""
        self._confirmation = Confirmation(replicas, seconds=timeout / 2)
        self._factory = connect(address, timeout=timeout)
        self._timeout = timeout
        self._protocols: WeakKeyDictionary[asyncio.AbstractEventLoop, RespProtocol] = WeakKeyDictionary()
        self._opening: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def execute(self, packed: bytes, replies: int, *, retry: bool = True) -> list[Any]:
        """Send commands and return their replies. Raises OnlineStoreUnavailableError like `RespClient`."""
        return (await self._answer(packed, replies, retry))[1]

    async def ask(self, packed: bytes, replies: int, glance: Callable[[bytes], Any]) -> tuple[bool, Any]:
        """`execute` of a large read: True and what the glance made of the bytes of all replies, or False and the
        replies. It is shown nothing where those bytes cannot be told from what comes after them."""
        return await self._answer(packed, replies, glance=glance)

    async def _answer(
        self, packed: bytes, replies: int, retry: bool = True, glance: Callable[[bytes], Any] | None = None
    ) -> tuple[bool, Any]:
        if replies == 0:
            return False, []
        try:
            found = await self._exchange(packed, replies, retry, glance is not None)
            seen = glance(found) if glance is not None and isinstance(found, bytes) else None
            if seen is not None:
                return True, seen
            return False, accepted(_parsed(found, replies) if isinstance(found, bytes) else found)
        except (TimeoutError, redis.TimeoutError) as error:
            raise too_slow(self._timeout) from error
        except (redis.RedisError, OSError) as error:
            raise gone(error) from error
        except OnlineStoreUnavailableError:
            await self.close()  # it may not be the master any more, and this connection would go on asking it
            raise

    async def _exchange(self, packed: bytes, replies: int, retry: bool, as_bytes: bool) -> list[Any] | bytes:
        protocol, fresh = await self._protocol()
        try:
            return await protocol.request(packed, replies, as_bytes)
        except ConnectionLostError:
            if fresh or not retry:
                raise
        protocol, _ = await self._protocol()
        return await protocol.request(packed, replies, as_bytes)

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

    async def _protocol(self) -> tuple[RespProtocol, bool]:
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

    async def _open(self, loop: asyncio.AbstractEventLoop) -> RespProtocol:
        """redis-py greets the server (TLS, password, database) on a thread; then the loop takes over the socket."""
        connection, ends = await asyncio.wait_for(
            loop.run_in_executor(None, _open, self._factory), timeout=2 * self._timeout
        )
        if connection.is_encrypted:
            return TlsProtocol(connection, loop, self._timeout)
        raw = connection.detach()
        _, protocol = await loop.create_connection(lambda: RespProtocol(loop, self._timeout, ends), sock=raw)
        return protocol


def _open(factory: redis.Redis) -> tuple[Connection, ReplyEnds | None]:
    """A connection, and what may end replies on it: nothing where Redis refuses that."""
    connection, ends = Connection(factory), ReplyEnds()
    (answer,) = connection.exchange(ends.command(ends.next()), 1)
    return connection, ends if isinstance(answer, bytes) else None


def _parsed(data: bytes, replies: int) -> list[Any]:
    reader = hiredis.Reader()
    reader.feed(data)
    return [reader.gets() for _ in range(replies)]
