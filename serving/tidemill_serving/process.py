"""Running the API in this process: uvicorn on uvloop, ready for many connections, drained on SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterator

import uvicorn

from tidemill.errors import ConfigurationError, ConflictError
from tidemill.project import Project
from tidemill_serving.app import create_app
from tidemill_serving.protocol import DRAINING, PatientHttpProtocol

_log = logging.getLogger("tidemill.serving")
_BACKLOG = 2_048
_SWITCH_SECONDS = 0.001
_LAST_CALL = 0.3  # seconds in which everybody who uses a connection is told that it ends
_LAST_WORDS = 2.0  # seconds for the first request of those who were accepted last
_STEP = 0.05


def run_server(project: Project, *, host: str, port: int, dashboard: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; then finish what was begun and return.

    Raises ConflictError where something else listens on the port, ConfigurationError for an unsafe combination.
    """
    _refuse_open_server(project, host)
    prepare_process()
    config = server_config(project, host=host, port=port, dashboard=dashboard)
    with _listener(host, port) as listener:
        DrainingServer(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"Something else listens on {host}:{port}.", hint="Choose another with --port, or stop it."
            ) from None
        raise ConfigurationError(
            f"The API cannot listen on {host}:{port}: {error.strerror or error}.",
            hint="Choose an address of this machine and a port it may use.",
        ) from error


class DrainingServer(uvicorn.Server):
    """A server that loses no request when it ends.

    uvicorn alone closes idle connections at once, and with them the requests that are on their way on them. Here every
    answer first says that its connection ends; then nobody new is accepted; then what is idle is closed.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.serving.draining = True  # type: ignore[union-attr] - it is what `create_app` returned
        self.lifespan.state[DRAINING] = True
        for connection in self.server_state.connections:
            if isinstance(connection, PatientHttpProtocol):
                connection.end_with_this_answer()
        if not self.force_exit:
            await asyncio.sleep(_LAST_CALL)
        waiting = self._close_listeners(sockets or [])
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await self._hear_newcomers()
        await super().shutdown(sockets)

    def _close_listeners(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Accept nobody any more but those whom the kernel has accepted already, and would reset else."""
        last = [listener.dup() for listener in sockets]
        for listener in (*self.servers, *sockets):
            listener.close()
        waiting = [connection for listener in last for connection in _accept_all(listener)]
        for listener in last:
            listener.close()
        return waiting

    def _protocol(self) -> PatientHttpProtocol:
        return PatientHttpProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _hear_newcomers(self) -> None:
        """Who was accepted last may not have had the time to ask: wait a little for everybody's first request."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _LAST_WORDS
        while not self.force_exit and loop.time() < end:
            await asyncio.sleep(_STEP)
            if all(getattr(connection, "cycle", self) is not None for connection in self.server_state.connections):
                return


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    listener.setblocking(False)
    while True:
        try:
            yield listener.accept()[0]
        except OSError:  # nobody waits, or no more files can be opened
            return


def server_config(project: Project, *, host: str, port: int, dashboard: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(project, dashboard=dashboard),
        host=host,
        port=port,
        http=PatientHttpProtocol,
        ws="websockets-sansio" if dashboard else "none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(project.settings.request_timeout + 1)),
    )


def prepare_process() -> None:
    """Small models on one thread, short turns between event loop and model, as many connections as we may have."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.setswitchinterval(_SWITCH_SECONDS)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _refuse_open_server(project: Project, host: str) -> None:
    local = host in ("127.0.0.1", "::1", "localhost")
    if not local and project.settings.api_token is None:
        raise ConfigurationError(
            f"The API would be open to anybody who reaches {host}.",
            hint="Set `api_token` (TIDEMILL_API_TOKEN), or bind to 127.0.0.1.",
        )
