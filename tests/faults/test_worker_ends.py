"""A worker that is told to end does so, even where a model is being fitted that would take for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "schedule"))  # the small project is imported by name

from ports import free_port
from waiting import PATIENCE, PATIENT, wait_until
from worker_parts import HOURLY, at, catalog_with, model_with

from tidemill.clock import SimulatedClock
from tidemill.definitions.catalog import Trigger
from tidemill.project import Project, open_project
from tidemill.schedule.worker import Worker

SCRIPT = """
import sys
import time
from pathlib import Path

from tidemill.cli import work
from tidemill.project import open_project

root = Path(sys.argv[1])

def fit_for_ever(project, model, at):
    (root / "fitting").touch()
    while True:
        time.sleep(60)

work._retrain = fit_for_ever
work.run_worker(open_project(root), patience=0.0)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A model that is due, and nothing else."""
    (tmp_path / "feature_store.yaml").write_text("project: airports\n")
    opened = open_project(tmp_path)
    assert isinstance(opened.clock, SimulatedClock)
    opened.clock.set(at(3, 5))
    catalog = catalog_with(HOURLY)
    hourly = Trigger(kind="schedule", settings=(("cron", "5 * * * *"), ("timezone", "UTC")))
    views = tuple(replace(view, schedule=None) for view in catalog.views)
    opened.catalogs.add(replace(catalog, views=views, models=(model_with(hourly),)), at=at(0))
    yield opened
    opened.close()


@contextmanager
def worker_of(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    nowhere = {"TIDEMILL_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(project.root)]
    process = subprocess.Popen(command, env=os.environ | PATIENT | nowhere)
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_told_to_end_leaves_its_fit_to_the_next(project: Project, number: signal.Signals) -> None:
    with worker_of(project) as process:
        wait_until(lambda: (project.root / "fitting").exists() or process.poll() is not None)
        process.send_signal(number)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    (left,) = project.ledger.runs("retrain:late")
    assert left.state == "claimed"
    asked: list[datetime] = []
    (report,) = Worker(project, retrain=lambda _project, _model, now: asked.append(now)).run_due(at(3, 6))
    assert (report.view, report.state, asked) == ("retrain:late", "succeeded", [at(3, 6)])
    assert [run.takeovers for run in project.ledger.runs("retrain:late")] == [1]
