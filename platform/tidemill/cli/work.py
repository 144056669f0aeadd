"""The scheduler's process: does what is due until it is told to stop. `python -m tidemill.cli.work FOLDER` runs it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from tidemill.materialize.priority import give_way
from tidemill.project import Project, open_project
from tidemill.schedule.worker import TaskReport, Worker

_log = logging.getLogger("tidemill.schedule")


def run_worker(project: Project) -> None:
    """Run the project's schedule in this process until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    give_way(project)
    Worker(project, retrain=_retrain).run(stop, on_report=_note)


def _retrain(project: Project, model: str, at: datetime) -> Any:
    from tidemill_training.retrain import retrain  # training is imported when something is to be trained

    return retrain(project, model, at=at)


def _note(report: TaskReport) -> None:
    level = logging.INFO if report.error is None else logging.ERROR
    _log.log(level, "%s %s: %s%s", report.kind, report.view, report.state, f": {report.error}" if report.error else "")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    run_worker(open_project(Path(sys.argv[1])))
