"""A process that materializes once; the tests of this folder start it and kill it. Its globals come from the test.

Told to write `AT_MOST` so many chunks, it then says so by a file named `still`, and stands still.
"""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path
from typing import Any

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
write, written = project.online.write, list[str]()


def stand_still_after(view: str, *arguments: Any, **named: Any) -> Any:
    if len(written) == given["AT_MOST"]:
        (Path(given["ROOT"]) / "still").touch()
        threading.Event().wait()
    written.append(view)
    return write(view, *arguments, **named)


if "AT_MOST" in given:
    project.online.write = stand_still_after
for report in project.materializer.materialize(until=until, at=until):
    if report.state not in ("succeeded", "current"):
        raise SystemExit(f"{report.state}: {report.error}")
