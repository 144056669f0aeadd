"""A worker that the system ends as soon as it writes what it has read; its globals come from the test."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

from tidemill.clock import ManualClock
from tidemill.project import Project
from tidemill.schedule.worker import Worker
from tidemill.settings import Settings

given = globals()
now = datetime.fromisoformat(given["NOW"])
project = Project(
    Path(given["ROOT"]), settings=Settings(redis_url=given["ADDRESS"]), name="flights", clock=ManualClock(now)
)


def killed(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


project.online.write = killed
Worker(project).run_due(now)
