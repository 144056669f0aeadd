"""The small project on a real Redis, and its API as a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import polars as pl
import psutil
from ports import free_port
from small_project import NOW, catalog
from waiting import PATIENCE, wait_until

from tidemill.clock import ManualClock, SimulatedClock
from tidemill.definitions.catalog import Catalog, CodeReference
from tidemill.definitions.function_text import function_digest
from tidemill.project import Project
from tidemill.settings import Settings

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}
FEATURES = "/v1/features/delay_v1"
PREDICT = "/v1/models/delay/predict"
PUSH = "/v1/push/weather_now"
ON_DEMAND = """
def hours(inputs):
    return {"hours": [None if distance is None else distance / 500 for distance in inputs["distance"]]}
"""
_SERVER = """
import sys
from pathlib import Path
from tidemill.project import open_project
from tidemill_serving.process import run_server
from tidemill_serving.draining import DrainingServer
from tidemill_serving.protocol import PatientHttpProtocol
PatientHttpProtocol.head_timeout = float(sys.argv[3])
DrainingServer.last_call = DrainingServer.last_words = float(sys.argv[4])
run_server(open_project(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]))
"""


def small_catalog(*, on_demand: str = ON_DEMAND, **changes: Any) -> Catalog:
    """The small catalog with a function that is really there."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "flight_time.py")
        file.write_text(on_demand)
        digest = function_digest(file, "hours", file.parent)
    function = CodeReference(module="flight_time", qualname="hours", digest=digest)
    view = replace(catalog().on_demand_views[0], function=function)
    return replace(catalog(), **({"on_demand_views": (view,)} | changes))


def weather(rows: list[tuple[str, int, float | None]], *, at: datetime = NOW - timedelta(hours=1)) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={"origin": pl.String, "route": pl.Int64, "temp": pl.Float64}, orient="row")
    instant = pl.lit(at, dtype=pl.Datetime("us", "UTC"))
    return frame.with_columns(instant.alias("__event_time"), instant.alias("__known_time"))


def pushed(origin: str, temp: float, *, at: datetime = NOW - timedelta(minutes=1)) -> dict[str, Any]:
    """A row for `PUSH`."""
    return {"origin": origin, "route": 1, "temp": temp, "time": at.isoformat()}


def open_with_redis(
    root: Path, *, applied: Catalog | None = None, on_demand: str = ON_DEMAND, **settings: Any
) -> Project:
    """The small project in `root`, applied; its settings are in its file, so that other processes see them too.

    Where nothing else is asked for it is patient: a busy machine may keep Redis from answering for seconds.
    """
    settings = {"redis_timeout": 60.0, "request_timeout": 120.0} | settings
    (root / "feature_store.yaml").write_text(json.dumps({"project": "small", "tidemill": settings}))
    (root / "flight_time.py").write_text(on_demand)
    project = Project(root, settings=Settings(**settings), name="small", clock=ManualClock(NOW))
    project.catalogs.add(applied or small_catalog(on_demand=on_demand), at=NOW)
    return project


@dataclass(frozen=True, kw_only=True)
class LiveServer:
    """An API in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory(self) -> int:
        """Bytes of memory the process holds."""
        return psutil.Process(self.process.pid).memory_info().rss

    def ready(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=PATIENCE).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def live(
    project: Project,
    *,
    head_timeout: float = 10.0,
    files: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[LiveServer]:
    """The project's API, ready, with time standing still at NOW; `files` limits its file descriptors.

    When it is told to end it has patience: those who use it are heard, however slow the machine is.
    """
    SimulatedClock(project.state / "clock.json").set(NOW)
    port = free_port()
    command = [sys.executable, "-c", _SERVER, str(project.root), str(port), str(head_timeout), str(PATIENCE)]
    with (project.root / "server.log").open("a") as log:
        process = subprocess.Popen(
            command,
            text=True,
            stderr=log,
            env=os.environ | dict(environment or {}),
            preexec_fn=None if files is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        )
    server = LiveServer(process=process, port=port)
    try:
        wait_until(server.ready)
        yield server
    finally:
        process.kill()
        process.wait()
