"""uvicorn's HTTP protocol with patience that ends: what sends no complete request head, or takes no answer, is closed.

Otherwise ten thousand connections that send nothing would hold ten thousand file descriptors for ever, and one that
sends a head without end would hold all memory.
"""

from __future__ import annotations

import asyncio
import resource
from functools import cache, partial

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tidemill_serving.exchange import WHOLE
from tidemill_serving.limits import HEAD_BYTES, HEAD_TIMEOUT, TAKE_TIMEOUT
from tidemill_serving.problems import problem
from tidemill_serving.unread import UnreadAnswer

DRAINING = "draining"
"""Set in the state that all connections of a server share when it is about to end."""

_JSON_HEAD = STATUS_LINE[200] + b"content-type: application/json\r\ncontent-length: "
_RESERVED = 256  # file descriptors for everything but connections: Redis, the prediction log, databases, models


@cache
def most_connections() -> int:
    """How many connections this process may hold and still open the files it needs."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft - _RESERVED, soft // 2)


def _answer_at_once(cycle: RequestResponseCycle, body: bytes) -> bool:
    """Send a whole JSON answer, head and body, in one write: one system call here, one packet for the client.

    What `RequestResponseCycle.send` does with two messages. Returns False, with nothing done, where that has to do it:
    the client reads too slowly, or is gone.
    """
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_started or cycle.default_headers:
        return False
    end = b"\r\n\r\n" if cycle.keep_alive else b"\r\nconnection: close\r\n\r\n"
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((_JSON_HEAD, b"%d" % len(body), end, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class PatientHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is not complete `head_timeout` seconds after it was due to begin.

    When there are as many connections as there may be, a new one takes the place of the one that has been idle longest.
    """

    head_timeout = HEAD_TIMEOUT
    take_timeout = TAKE_TIMEOUT
    _idle: dict[PatientHttpProtocol, None] = {}  # noqa: RUF012 - of the whole process, as are its file descriptors

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unread = UnreadAnswer(transport, self.loop, seconds=self.take_timeout)
        self._head_bytes = 0
        self._head_alarm: asyncio.TimerHandle | None = self.loop.call_later(self.head_timeout, self._give_up)
        if len(self.connections) > most_connections():
            next(iter(self._idle), self)._give_up()
        self._idle[self] = None

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES and self._head_alarm is not None:
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_alarm is None:
            self._head_bytes = 0
            self._head_alarm = self.loop.call_later(self.head_timeout, self._give_up)

    def on_headers_complete(self) -> None:
        self._forget_head_alarm()
        self._idle.pop(self, None)
        super().on_headers_complete()
        if DRAINING in self.app_state:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.scope[WHOLE] = partial(_answer_at_once, self.cycle)  # type: ignore[typeddict-unknown-key] - for `exchange`

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._idle[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread.begin()

    def resume_writing(self) -> None:
        self._unread.end()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread.end()
        self._forget_head_alarm()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def end_with_this_answer(self) -> None:
        """If a request is to be answered, let the answer say that the connection ends with it. One that has begun has
        said that it stays, so that its client may ask once more."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _give_up(self) -> None:
        self._forget_head_alarm()
        self._idle.pop(self, None)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "Not HTTP", f"{msg} Nothing that follows on this connection can be understood.")

    def _refuse_head(self) -> None:
        self._refuse(431, "Head too large", f"The head of the request is longer than {HEAD_BYTES:,} bytes.")

    def _refuse(self, status: int, title: str, detail: str) -> None:
        found = problem(status, {"type": "about:blank", "title": title, "status": status, "detail": detail})
        head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(found.body) + found.body)
        self._give_up()

    def _forget_head_alarm(self) -> None:
        if self._head_alarm is not None:
            self._head_alarm.cancel()
            self._head_alarm = None
