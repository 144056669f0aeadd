"""A server of `serving_peers.py` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

PEERS = Path(__file__).with_name("serving_peers.py")


@contextmanager
def serving(which: str, root: Path, port: int) -> Iterator[psutil.Process]:
    """The process, from the moment its server is ready until the block ends."""
    with subprocess.Popen([sys.executable, str(PEERS), which, str(root), str(port)]) as process:
        try:
            path = "/readyz" if which.startswith("ours") else "/health"
            _wait(lambda: httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(3_000):
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise SystemExit("A server did not become ready.")
