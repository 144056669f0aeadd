"""The scheduler's process: does what is due until it is told to stop. `python -m tidemill.cli.work FOLDER` runs it."""

from __future__ import annotations

import logging
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from tidemill.cli.bounded_log import keep_log_bounded
from tidemill.cli.stopping import stop_when_told
from tidemill.materialize.priority import give_way
from tidemill.project import Project, open_project
from tidemill.schedule.lanes import run_in_lanes
from tidemill.schedule.worker import TaskReport

_log = logging.getLogger("tidemill.schedule")
_PATIENCE = 10.0  # seconds, less than `tidemill down` has


def run_worker(project: Project, *, patience: float = _PATIENCE) -> None:
    """Run the project's schedule in this process until SIGTERM or SIGINT.

    The process dies of a SIGTERM of its own where a model is still being fitted `patience` seconds after all else has
    ended: whoever waits for it sees that not all did, and nothing waits for the fit.
    """
    from tidemill_training.registry import settle_process

    stop = stop_when_told()
    give_way(project)
    settle_process()
    if not run_in_lanes(project, retrain=_retrain, stop=stop, patience=patience, on_report=_note):
        _log.warning("A model is still being fitted; the next worker begins that anew.")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


def _retrain(project: Project, model: str, at: datetime) -> Any:
    from tidemill_training.retrain import retrain  # training is imported when something is to be trained

    return retrain(project, model, at=at)


def _note(report: TaskReport) -> None:
    level = logging.INFO if report.error is None else logging.ERROR
    _log.log(level, "%s %s: %s%s", report.kind, report.view, report.state, f": {report.error}" if report.error else "")


if __name__ == "__main__":
    keep_log_bounded()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    run_worker(open_project(Path(sys.argv[1])))
