"""Answers that nobody takes: who asks for megabytes and reads none of them would else keep them in memory for ever."""

from __future__ import annotations

import asyncio
import socket
import struct

_AT_ONCE = struct.pack("ii", 1, 0)  # no lingering: the kernel too throws away what it holds for the connection


class UnreadAnswer:
    """What waits to be sent on one connection, from `begin` to `end`. However slowly the client takes it, it is waited
    for; after `seconds` in which nothing was taken the connection is reset."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, *, seconds: float) -> None:
        self._transport, self._loop, self._seconds = transport, loop, seconds
        self._alarm: asyncio.TimerHandle | None = None
        self._left = 0

    def begin(self) -> None:
        self.end()
        self._left = self._transport.get_write_buffer_size()
        self._alarm = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._left:
            self.begin()
            return
        self._alarm = None
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()
