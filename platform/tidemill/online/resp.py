"""Talking to Redis with as little between us and the socket as Python allows.

Commands are bytes prepared by the caller; replies are parsed by hiredis. redis-py opens the connections (unix socket,
TCP, TLS, passwords, Sentinel) and is not in the way afterwards. See https://redis.io/docs/reference/protocol-spec/
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.confirmation import Confirmation
from tidemill.online.connection import SMALL_CHUNK, Connection, Glance, Listener
from tidemill.online.courtesy import Courtesy, ReadsOf
from tidemill.online.redis_address import connect
from tidemill.online.redis_refusals import ClusterError, RedisReplyError, accepted, gone, too_slow
from tidemill.online.reply_stream import ReplyStream, Sendable

__all__ = ["RedisReplyError", "ReplyStream", "RespClient", "Script", "Sendable", "pack_command"]

_LOAD_TIMEOUT = 60.0  # seconds: during a load Redis may pause for its disk, and nobody waits for an answer
_GONE = (ConnectionError, redis.ConnectionError, EOFError, OSError)

Part = bytes | str | int | float


def pack_command(*parts: Part) -> bytes:
    """One command as bytes."""
    return hiredis.pack_command(parts)  # type: ignore[arg-type] - a tuple of any length, whatever its stub says


class RespClient:
    """Sends prepared commands and returns the replies. Thread-safe: each call has a connection to itself.

    Raises OnlineStoreUnavailableError when Redis is gone, slower than `timeout` seconds, loading, full or read-only;
    the next call tries again.
    """

    def __init__(self, address: str, *, timeout: float = 1.0, replicas: int = 0) -> None:
        """`replicas` is how many replicas must hold a write before `write` or a stream answers."""
        self._timeout = timeout
        self._confirmation = Confirmation(replicas, seconds=timeout / 2)
        self._factory = connect(address, timeout=timeout)
        self.courtesy = Courtesy()
        self._idle: deque[Connection] = deque()
        self._pid = os.getpid()

    def execute(
        self,
        packed: bytes,
        replies: int,
        *,
        retry: bool = True,
        timeout: float | None = None,
        listener: Listener | None = None,
    ) -> list[Any]:
        """Send commands and return one reply for each of the `replies` expected, within `timeout` seconds if given.

        A connection that turns out dead is replaced and the commands sent once more, unless `retry` is False: then a
        command that must not happen twice fails instead. A `listener` sends more and is told what has come.
        """
        if replies == 0:
            return []
        try:
            return self._accepted(self._exchange(packed, replies, retry, timeout or self._timeout, listener))
        except (TimeoutError, redis.TimeoutError) as error:
            raise too_slow(timeout or self._timeout) from error
        except (redis.RedisError, OSError) as error:
            raise gone(error) from error

    def ask(
        self, packed: bytes, replies: int, glance: Glance | None = None, expected: int = SMALL_CHUNK
    ) -> tuple[bool, list[Any]]:
        """`execute` for one small read, with as few steps as it takes: True and what the glance made of the answer, or
        False and the replies. The answer is mostly within the `expected` bytes.

        The connection that was used last is used again; where there is none, or it is dead, `execute` takes over.
        """
        if self._pid != os.getpid() or not self._idle:
            return False, self.execute(packed, replies)
        try:
            connection = self._idle.pop()
        except IndexError:  # another thread was quicker
            return False, self.execute(packed, replies)
        try:
            found = connection.ask(packed, replies, glance, expected)
        except TimeoutError as error:
            connection.close()
            raise too_slow(self._timeout) from error
        except _GONE:
            connection.close()
            self._drop_idle()
            return False, self.execute(packed, replies)
        except BaseException:
            connection.close()  # replies may still come, and they are nobody's
            raise
        self._idle.append(connection)
        if not found[0]:
            self._accepted(found[1])
        return found

    def write(self, packed: bytes, replies: int, *, retry: bool = True) -> list[Any]:
        """`execute` for commands that write: answers when enough replicas hold what was written."""
        confirmation = self._confirmation
        found = self.execute(packed + confirmation.packed, replies + confirmation.replies, retry=retry)
        return confirmation.checked(found)

    def check(self) -> None:
        """Raises OnlineStoreUnavailableError unless Redis answers and is one that can be used."""
        self.call("PING")
        try:
            found = self.call("INFO", "cluster")
        except (OnlineStoreUnavailableError, RedisReplyError):  # a user who may not ask; reads will tell
            return
        if b"cluster_enabled:1" in found:
            raise ClusterError

    def call(self, *parts: Part, retry: bool = True) -> Any:
        return self.execute(pack_command(*parts), 1, retry=retry)[0]

    def pipeline(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        return self.execute(b"".join(pack_command(*parts) for parts in commands), len(commands))

    def stream(self, *, ahead: int | None = None, reads: ReadsOf | None = None) -> ReplyStream:
        """A connection of one's own for a bulk load: send a little ahead, count the replies later.

        `ahead` is about how many bytes may wait for Redis, where the connection can be told. A load that says what its
        own commands read gives way to whoever else does.
        """
        try:
            connection = Connection(self._factory)
            connection.limit(max(self._timeout, _LOAD_TIMEOUT))
            watch = None if reads is None else self.courtesy.watch(connection.socket, reads)
            return ReplyStream(connection, self._confirmation, ahead=ahead, watch=watch)
        except (redis.RedisError, OSError) as error:
            raise gone(error) from error

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        self._factory.close()

    def _exchange(
        self, packed: bytes, replies: int, retry: bool, timeout: float, listener: Listener | None
    ) -> list[Any]:
        connection, fresh = self._take()
        try:
            if timeout != self._timeout:
                connection.limit(timeout)
            found = connection.exchange(packed, replies, listener)
        except TimeoutError:
            connection.close()
            raise
        except _GONE:
            connection.close()
            self._drop_idle()
            if fresh or not retry:
                raise
            connection = Connection(self._factory)
            connection.limit(timeout)
            found = connection.exchange(packed, replies, listener)
        except BaseException:
            connection.close()  # replies may still come, and they are nobody's
            raise
        if timeout != self._timeout:
            connection.limit(self._timeout)
        self._idle.append(connection)
        return found

    def _accepted(self, replies: list[Any]) -> list[Any]:
        try:
            return accepted(replies)
        except OnlineStoreUnavailableError:
            self._drop_idle()  # it may not be the master any more, and these connections would go on asking it
            raise

    def _take(self) -> tuple[Connection, bool]:
        if self._pid != os.getpid():  # a forked child must not talk on its parent's connections
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop(), False
        except IndexError:
            return Connection(self._factory), True

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
        return self.send(client, pack_command("EVALSHA", self.digest, len(keys), *keys, *arguments), retry=retry)

    def send(self, client: RespClient, command: bytes, *, retry: bool = True) -> Any:
        """The reply to an EVALSHA of this script that is packed already."""
        try:
            return client.write(command, 1, retry=retry)[0]
        except RedisReplyError as error:
            if not is_unknown_script(error):
                raise
        self.load(client)
        return client.write(command, 1, retry=retry)[0]

    def load(self, client: RespClient) -> None:
        client.execute(pack_command("SCRIPT", "LOAD", self.source), 1, timeout=_LOAD_TIMEOUT)


def is_unknown_script(error: RedisReplyError) -> bool:
    """Whether Redis has not been told this script yet, or has forgotten it."""
    return str(error).startswith("NOSCRIPT")
