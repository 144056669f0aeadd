"""A process that materializes once; the tests of this folder start it and kill it. Its globals come from the test."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tidemill.clock import ManualClock
from tidemill.project import Project
from tidemill.settings import Settings

given = globals()
until = datetime.fromisoformat(given["UNTIL"])
project = Project(
    Path(given["ROOT"]),
    settings=Settings(redis_url=given["ADDRESS"], redis_timeout=60, memory_limit="201mb"),
    name="flights",
    clock=ManualClock(until),
)
for report in project.materializer.materialize(until=until, at=until):
    if report.state not in ("succeeded", "current"):
        raise SystemExit(f"{report.state}: {report.error}")
