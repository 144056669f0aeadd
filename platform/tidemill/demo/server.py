"""An API of the project's own for as long as the story needs one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import httpx

from tidemill.errors import UnavailableError

_PATIENCE = 30.0  # seconds until the API must answer


@contextmanager
def api_of(root: Path, *, log: Path) -> Iterator[str]:
    """Start `tidemill serve` on a free port of the loopback, wait until it is ready, and stop it at the end.

    Yields its URL. Its output goes to `log`. Raises UnavailableError with the end of that log if it does not come up.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tidemill", "serve", "--project", str(root), "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=_environment(), start_new_session=True)
    try:
        _wait_until_ready(url, process, log)
        yield url
    finally:
        _stop(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = monotonic() + _PATIENCE
    with httpx.Client(base_url=url, timeout=2.0) as client:
        while process.poll() is None and monotonic() < deadline:
            if _is_ready(client):
                return
            sleep(0.1)
    said = log.read_text(errors="replace")[-2_000:]
    raise UnavailableError(f"The API did not become ready. It said:\n{said}", hint=f"Its whole output is in {log}.")


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False  # it does not listen yet


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """One numerical thread: a row's prediction takes less than a millisecond, and threads would only meet."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
