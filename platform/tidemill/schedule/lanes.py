"""A project's schedule in two lanes, so that no view waits for a model that is fitted for an hour.

Extraction and materialization stay one after the other, in one lane: their memory is needed once. Models are fitted in
the other, as by a second worker on the same ledger, which also tells it when what they read is there. Only the loop has
lanes; where time is an argument (`Worker.run_due`) one thing is done after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill.schedule.tasks import Kind
from tidemill.schedule.tries import Tries
from tidemill.schedule.worker import Retrain, TaskReport, Worker

if TYPE_CHECKING:
    from tidemill.project import Project

THREAD = "tidemill-retraining"


def run_in_lanes(
    project: Project,
    *,
    retrain: Retrain,
    stop: threading.Event,
    patience: float,
    on_report: Callable[[TaskReport], None] | None = None,
) -> bool:
    """Do what is due whenever it is, until `stop` is set; views in this thread, models in one of their own.

    Work that was begun is ended first. A fit is waited for no longer than `patience` seconds, though: False says that
    it goes on, and that the process should end without it; the ledger has the next worker begin it anew. `retrain` is
    given a project of its own, whose definitions stay as they are for as long as it works. `on_report` is called in
    both threads.
    """
    beside, tries = project.again(), Tries(project.ledger)
    models = Worker(beside, retrain=retrain, only=Kind.RETRAIN, tries=tries)

    def fit() -> None:
        try:
            models.run(stop, on_report=on_report)
        finally:
            stop.set()  # whatever ended it, a process without it would look as if all were well
            beside.close()

    lane = threading.Thread(target=fit, name=THREAD, daemon=True)
    lane.start()
    try:
        Worker(project, tries=tries).run(stop, on_report=on_report)
    finally:
        stop.set()
    lane.join(patience)
    return not lane.is_alive()
