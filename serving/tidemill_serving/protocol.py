"""uvicorn's HTTP protocol with patience that ends: a connection that sends no complete request head is closed.

Otherwise ten thousand connections that send nothing would hold ten thousand file descriptors for ever.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidemill_serving.limits import HEAD_TIMEOUT


class PatientHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is not complete `head_timeout` seconds after it was due to begin."""

    head_timeout = HEAD_TIMEOUT

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_alarm: asyncio.TimerHandle | None = self.loop.call_later(self.head_timeout, self._give_up)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_alarm is None:
            self._head_alarm = self.loop.call_later(self.head_timeout, self._give_up)

    def on_headers_complete(self) -> None:
        self._forget_head_alarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head_alarm()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self._head_alarm = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def _forget_head_alarm(self) -> None:
        if self._head_alarm is not None:
            self._head_alarm.cancel()
            self._head_alarm = None
