"""Running the API in this process: uvicorn on uvloop, ready for many connections, drained on SIGTERM."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from collections.abc import Callable
from math import ceil

import uvicorn

from tidemill.errors import ConfigurationError, ConflictError
from tidemill.project import Project
from tidemill_serving.app import create_app
from tidemill_serving.draining import DrainingServer
from tidemill_serving.protocol import PatientHttpProtocol

_BACKLOG = 2_048
_SWITCH_SECONDS = 0.001


def run_server(
    project: Project,
    *,
    host: str,
    port: int,
    dashboard: bool = False,
    when_told_to_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then call `when_told_to_end`, finish what was begun and return.

    Raises ConflictError where something else listens on the port, ConfigurationError for an unsafe combination.
    """
    _refuse_open_server(project, host)
    prepare_process()
    config = server_config(project, host=host, port=port, dashboard=dashboard)
    with _listener(host, port) as listener:
        server = DrainingServer(config)
        server.when_told_to_end = when_told_to_end
        server.run(sockets=[listener])


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
        # A request may take its time to arrive, and as long again to be answered.
        timeout_graceful_shutdown=ceil(2 * project.settings.request_timeout) + 1,
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
