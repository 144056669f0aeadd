"""Views are loaded while a model is fitted, and a model waits for the views that it reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from queue import SimpleQueue

import pytest
from waiting import PATIENCE, wait_until
from worker_parts import HOURLY, Airports, at, catalog_with, model_with

from tidemill.definitions import Schedule
from tidemill.definitions.catalog import Catalog, CatchUp, Trigger
from tidemill.project import Project
from tidemill.schedule.lanes import THREAD, run_in_lanes
from tidemill.schedule.worker import TaskReport


def with_model(schedule: Schedule) -> Catalog:
    hourly = Trigger(kind="schedule", settings=(("cron", "5 * * * *"), ("timezone", "UTC")))
    return replace(catalog_with(schedule), models=(model_with(hourly),))


@dataclass
class Fit:
    """Stands where training stands: notes what there was to learn from, and goes on until it may end."""

    begun: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)
    loaded_up_to: list[datetime | None] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)

    def __call__(self, project: Project, _model: str, _at: datetime) -> None:
        self.loaded_up_to.append(project.ledger.last_end("weather"))
        self.definitions.append(project.catalog.digest)
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        self.definitions.append(project.catalog.digest)


class Lanes:
    """A schedule that runs in lanes, and its reports in the order in which they come."""

    def __init__(self, airports: Airports, fit: Fit, *, patience: float) -> None:
        self._reports: SimpleQueue[TaskReport] = SimpleQueue()
        self._ended: list[bool] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(airports.project, fit, patience))
        self._thread.start()

    def _run(self, project: Project, fit: Fit, patience: float) -> None:
        told = self._reports.put
        self._ended.append(run_in_lanes(project, retrain=fit, stop=self._stop, patience=patience, on_report=told))

    def report(self) -> tuple[str, datetime, str]:
        found = self._reports.get(timeout=PATIENCE)
        return found.view, found.end, found.state

    def stop(self) -> bool:
        """Whether all that was begun had ended."""
        self._stop.set()
        self._thread.join(PATIENCE)
        return self._ended[0]


@contextmanager
def in_lanes(airports: Airports, fit: Fit) -> Iterator[Lanes]:
    lanes = Lanes(airports, fit, patience=PATIENCE)
    try:
        yield lanes
    finally:
        fit.may_end.set()
        ended = lanes.stop()
    assert ended


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set by hand is looked at often."""
    monkeypatch.setattr("tidemill.schedule.worker._LONGEST_SLEEP", 0.01)


def test_a_view_is_loaded_at_its_tick_while_a_model_is_being_fitted(airports: Airports) -> None:
    airports.apply(with_model(HOURLY))
    airports.clock.set(at(3, 5))
    fit = Fit()
    with in_lanes(airports, fit) as lanes:
        assert lanes.report() == ("weather", at(3, 5), "succeeded")
        assert fit.begun.wait(PATIENCE)
        airports.clock.set(at(4, 5))
        assert lanes.report() == ("weather", at(4, 5), "succeeded")
        (going,) = airports.project.ledger.runs("retrain:late")
        assert (going.end, going.state) == (at(3, 5), "claimed")
        fit.may_end.set()
        assert lanes.report() == ("retrain:late", at(3, 5), "succeeded")
        assert lanes.report() == ("retrain:late", at(4, 5), "succeeded")
    assert fit.loaded_up_to == [at(3, 5), at(4, 5)]


def test_a_model_waits_for_a_view_that_has_failed_in_the_other_lane(airports: Airports) -> None:
    """Its tick is over a minute old by then, and would have been skipped had nobody begun it in time."""
    airports.apply(with_model(replace(HOURLY, catch_up=CatchUp.SKIP)))
    airports.clock.set(at(3, 5))
    airports.loads.failing = True
    fit = Fit()
    fit.may_end.set()
    with in_lanes(airports, fit) as lanes:
        assert lanes.report() == ("weather", at(3, 5), "failed")
        airports.clock.set(at(3, 7))
        assert lanes.report() == ("weather", at(3, 5), "failed")
        airports.loads.failing = False
        airports.clock.set(at(3, 10))
        assert {lanes.report() for _ in range(2)} == {
            ("weather", at(3, 5), "succeeded"),
            ("retrain:late", at(3, 5), "succeeded"),
        }
    assert fit.loaded_up_to == [at(3, 5)]


def test_new_definitions_are_loaded_while_a_model_is_fitted_by_the_old_ones(airports: Airports) -> None:
    old = with_model(HOURLY)
    (weather,) = old.views
    airports.apply(old)
    airports.clock.set(at(3, 5))
    fit = Fit()
    with in_lanes(airports, fit) as lanes:
        assert lanes.report() == ("weather", at(3, 5), "succeeded")
        assert fit.begun.wait(PATIENCE)
        airports.project.catalogs.add(replace(old, views=(weather, replace(weather, name="wind"))), at=at(3, 5))
        assert lanes.report() == ("wind", at(3, 5), "succeeded")
        fit.may_end.set()
        assert lanes.report() == ("retrain:late", at(3, 5), "succeeded")
    assert fit.definitions == [old.digest, old.digest]


def test_a_fit_that_goes_on_does_not_keep_the_schedule_from_ending(airports: Airports) -> None:
    airports.apply(with_model(HOURLY))
    airports.clock.set(at(3, 5))
    fit = Fit()
    lanes = Lanes(airports, fit, patience=0.0)
    assert fit.begun.wait(PATIENCE)
    assert not lanes.stop()
    (fitting,) = [thread for thread in threading.enumerate() if thread.name == THREAD]
    fit.may_end.set()
    fitting.join(PATIENCE)
    wait_until(lambda: airports.project.ledger.runs("retrain:late")[0].state == "succeeded")
