"""A server that loses no request when it ends."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import uvicorn

from tidemill_serving.protocol import DRAINING, PatientHttpProtocol

_STEP = 0.02
_SO_ATTACH_FILTER = 26
_REFUSE_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # a filter of one instruction: accept nothing of a packet


class DrainingServer(uvicorn.Server):
    """uvicorn alone closes idle connections at once, and with them the requests that are on their way on them. Here
    every answer first says that its connection ends; then nobody new is accepted; then what is idle is closed.

    Attributes:
        last_call: seconds in which those who have a connection are told that it ends, with the answer to what they ask
            next. Over as soon as all are.
        last_words: seconds for the first request of those who were accepted last.
        when_told_to_end: called first. What is being done is finished, and a thread of a user's model or a disk may
            take for ever to do so: whoever owns the process can see to it here that it ends nevertheless.
    """

    last_call = 0.3
    last_words = 2.0
    when_told_to_end: Callable[[], None] = staticmethod(lambda: None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.when_told_to_end()
        self.config.app.state.serving.draining = True  # type: ignore[union-attr] - it is what `create_app` returned
        self.lifespan.state[DRAINING] = True
        early = list(self.server_state.connections)
        for connection in early:
            if isinstance(connection, PatientHttpProtocol):
                connection.end_with_this_answer()
        await self._wait(self.last_call, lambda: self.server_state.connections.isdisjoint(early))
        waiting = self._close_listeners(sockets or [])
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await self._wait(self.last_words, self._all_have_asked)
        await super().shutdown(sockets)

    def _close_listeners(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Accept nobody any more but those whom the kernel has accepted already, and would reset else."""
        last = [listener.dup() for listener in sockets]
        for listener in last:
            _keep_out(listener)
        for listener in (*self.servers, *sockets):
            listener.close()
        waiting = [connection for listener in last for connection in _accept_all(listener)]
        for listener in last:
            listener.close()
        return waiting

    def _protocol(self) -> PatientHttpProtocol:
        return PatientHttpProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _all_have_asked(self) -> bool:
        """Whether even those who were accepted last have had the time to ask something."""
        return all(getattr(connection, "cycle", self) is not None for connection in self.server_state.connections)

    async def _wait(self, seconds: float, condition: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.force_exit and loop.time() < end and not condition():
            await asyncio.sleep(_STEP)


def _keep_out(listener: socket.socket) -> None:
    """Let the kernel overlook who knocks from now on: they knock again and find the listener closed, instead of being
    accepted between our last look and its end, and reset."""
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(_REFUSE_ALL)
    with suppress(OSError):  # where that is forbidden, a moment remains in which somebody may be reset
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    listener.setblocking(False)
    while True:
        try:
            yield listener.accept()[0]
        except OSError:  # nobody waits, or no more files can be opened
            return
