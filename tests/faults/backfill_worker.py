"""A process that backfills a view and stands still in the middle, to be killed. Its globals come from the test."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

from tidemill.clock import ManualClock
from tidemill.materialize.backfill import backfill
from tidemill.project import Project
from tidemill.settings import Settings

given = globals()
project = Project(
    Path(given["ROOT"]),
    settings=Settings(redis_url=given["ADDRESS"], redis_timeout=60),
    name="flights",
    clock=ManualClock(datetime.fromisoformat(given["NOW"])),
)
start, end = datetime.fromisoformat(given["START"]), datetime.fromisoformat(given["END"])
noted: list[int] = []


def note(pieces: int) -> None:
    noted.append(pieces)
    if len(noted) == given["AT_MOST"]:
        threading.Event().wait()


backfill(project, "weather", start=start, end=end, parallel=2, progress=note)
