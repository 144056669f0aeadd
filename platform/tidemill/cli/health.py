"""What a long-running command answers to those who watch it: /healthz and /metrics on 127.0.0.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tidemill.errors import ConfigurationError


@contextmanager
def serve_health(
    health: Callable[[], dict[str, Any]], metrics: Callable[[], str], *, port: int | None
) -> Iterator[str | None]:
    """Answer from a thread of its own while the block runs; yields the address, or None where no port is given.

    Args:
        health: the document of /healthz; its `well` decides between 200 and 503.
        metrics: what /metrics says, in Prometheus's text format.
        port: 0 takes a free one. Raises ConfigurationError where it is taken.
    """
    if port is None:
        yield None
        return
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(health, metrics))
    except OSError as error:
        raise ConfigurationError(f"Port {port} is taken: {error}.", hint="Name another with --port.") from error
    threading.Thread(target=server.serve_forever, name="tidemill-health", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(health: Callable[[], dict[str, Any]], metrics: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for one who connects to ask

        def do_GET(self) -> None:
            if self.path == "/healthz":
                found = health()
                self._answer(200 if found["well"] else 503, "application/json", json.dumps(found))
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", metrics())
            else:
                self._answer(404, "text/plain", "There are /healthz and /metrics.\n")

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's names
            """A probe every few seconds is no news."""

    return Handler
