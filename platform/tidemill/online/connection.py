"""One connection to Redis: its socket and hiredis, the parser in C. See https://redis.io/docs/reference/protocol-spec/"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

import hiredis
import redis

from tidemill.online.redis_address import leave_sentinels
from tidemill.online.redis_refusals import ConnectionLostError


class Listener(Protocol):
    """Somebody who sends in two parts, and makes use of the first replies while Redis works on the others."""

    def rest(self) -> tuple[bytes, int]:
        """The commands of the second part, and how many replies they have. Asked when the first part has been sent, and
        again if everything has to be sent once more."""
        ...

    def take(self, replies: list[Any], /) -> None:
        """Told all replies that have come so far, while more are on their way."""
        ...


Glance = Callable[[bytes], list[Any] | None]
"""Shown the first bytes of an answer. What it returns is the answer; None leaves the bytes to the parser."""

MORE = object()
"""What the parser answers while a reply is incomplete."""

CHUNK, SMALL_CHUNK = 65_536, 8_192
"""Bytes taken from the socket at once, of which there is no more than is needed where little is expected."""


class Connection:
    """Opened and greeted (TLS, password, database) by redis-py, which is not in the way afterwards.

    Raises TimeoutError where Redis takes longer than the limit for one step, OSError where it is gone.
    """

    def __init__(self, factory: redis.Redis) -> None:
        self._origin: Any = factory.connection_pool.make_connection()
        try:
            self._origin.connect()
        finally:
            leave_sentinels(factory)
        self.socket: socket.socket = self._origin._sock
        self._reader = hiredis.Reader(notEnoughData=MORE)
        self.limit(self.socket.gettimeout() or 0.0)

    @property
    def is_encrypted(self) -> bool:
        return hasattr(self.socket, "_sslobj")

    def limit(self, seconds: float) -> None:
        """How long sending or receiving may take; 0 for ever. The kernel counts it where it can: Python's own way asks
        the kernel twice each time."""
        if self.is_encrypted:
            self.socket.settimeout(seconds or None)
            return
        limit = struct.pack("ll", int(seconds), round(seconds % 1 * 1e6))
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def send(self, packed: bytes | memoryview) -> None:
        try:
            self.socket.sendall(packed)
        except BlockingIOError:
            raise TimeoutError from None

    def exchange(self, packed: bytes, replies: int, listener: Listener | None = None) -> list[Any]:
        """Send commands and return their replies, those of the listener's second part included."""
        found: list[Any] = []
        self.send(packed)
        if listener is not None:
            rest, more = listener.rest()
            self.send(rest)
            replies += more
        feed, gets = self._reader.feed, self._reader.gets
        while True:
            feed(self._read())
            while (reply := gets()) is not MORE:
                found.append(reply)
            if len(found) >= replies:
                return found
            if listener is not None:
                listener.take(found)

    def ask(
        self, packed: bytes, replies: int, glance: Glance | None, expected: int = SMALL_CHUNK
    ) -> tuple[bool, list[Any]]:
        """`exchange` of little, in as few steps as it takes: True and what the glance saw, or False and the replies.
        It is shown no more than the `expected` bytes."""
        try:
            self.socket.sendall(packed)
            data = self.socket.recv(expected)
        except BlockingIOError:
            raise TimeoutError from None
        if glance is not None:
            seen = glance(data)
            if seen is not None:
                return True, seen
        if not data:
            raise _closed()
        self._reader.feed(data)
        return False, self.receive(replies)

    def receive(self, replies: int) -> list[Any]:
        """The next replies to what was sent. Those that have come with them are kept."""
        reader, found = self._reader, []
        while len(found) < replies:
            reply = reader.gets()
            if reply is MORE:
                reader.feed(self._read())
            else:
                found.append(reply)
        return found

    def _read(self) -> bytes:
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            raise TimeoutError from None
        if not data:
            raise _closed()
        return data

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


def _closed() -> ConnectionLostError:
    return ConnectionLostError("Redis closed the connection")
