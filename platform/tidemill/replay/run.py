"""Pushing history through the live system in simulated time.

Nothing is short-circuited: events go in through the API as they become known, the schedule runs at its ticks, and
every request of the spine is a prediction over HTTP at its own instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import polars as pl

from tidemill.clock import SimulatedClock, as_utc
from tidemill.definitions.catalog import Catalog, Model
from tidemill.errors import ConfigurationError, InputError
from tidemill.extract import fetch
from tidemill.extract.declare import extracted_sources
from tidemill.project import Project
from tidemill.replay.timeline import Moment, moments
from tidemill.schedule.ticks import ticks_between
from tidemill.schedule.worker import Worker

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Api(Protocol):
    """What a replay asks of the serving API; `tidemill.Client` is one."""

    def predict(self, model: str, rows: Sequence[Mapping[str, Any]]) -> Any: ...

    def push(self, source: str, rows: Sequence[Mapping[str, Any]]) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """What happened in a replayed interval. `seconds` is wall time."""

    model: str
    start: datetime
    end: datetime
    predictions: int
    events: int
    runs: int
    seconds: float


class Replay:
    """One model's life over an interval of history.

    Raises ConfigurationError where the project does not live on a simulated clock, which only a replay may move.
    """

    def __init__(self, project: Project, model: str, api: Api) -> None:
        if not isinstance(project.clock, SimulatedClock):
            raise ConfigurationError(
                "A replay needs the project's simulated clock; this project was opened with another."
            )
        self._project, self._clock, self._api = project, project.clock, api
        self._model = project.catalog.model(model)
        self._worker = Worker(project)

    def run(
        self, *, start: datetime, end: datetime, progress: Callable[[datetime, int], None] | None = None
    ) -> ReplayReport:
        """Live from `start` to `end`; `progress(now, predictions)` is called after every moment.

        The clock stays at `end`. Raises InputError where the interval ends before it starts.
        """
        start, end = as_utc(start), as_utc(end)
        if end <= start:
            raise InputError(f"The interval ends ({end}) before it starts ({start}).")
        began = perf_counter()
        events = _events(self._project, start, end)
        spine = _requests(self._project, self._model, start, end)
        known = {source: times for source, (_, times) in events.items()}
        done = _Done()
        ticks = scheduled_ticks(self._project.catalog, start, end)
        for moment in moments(known=known, ticks=ticks, requests=spine.times):
            self._live(moment, {source: rows for source, (rows, _) in events.items()}, spine.rows, done)
            if progress is not None:
                progress(_EPOCH + timedelta(microseconds=moment.at), len(spine.rows[moment.requests]))
        self._clock.set(end)
        return ReplayReport(
            model=self._model.name,
            start=start,
            end=end,
            predictions=done.predictions,
            events=done.events,
            runs=done.runs,
            seconds=perf_counter() - began,
        )

    def _live(
        self, moment: Moment, events: Mapping[str, list[dict[str, Any]]], requests: list[dict[str, Any]], done: _Done
    ) -> None:
        at = _EPOCH + timedelta(microseconds=moment.at)
        self._clock.set(at)
        for source, part in moment.events.items():
            rows = events[source][part]
            self._api.push(source, rows)
            done.events += len(rows)
        if moment.ticks:
            done.runs += len(self._worker.run_due(at))
        rows = requests[moment.requests]
        if rows:
            self._api.predict(self._model.name, rows)
            done.predictions += len(rows)


@dataclass
class _Done:
    predictions: int = 0
    events: int = 0
    runs: int = 0


@dataclass(frozen=True, kw_only=True)
class _Requests:
    rows: list[dict[str, Any]]
    times: np.ndarray


def scheduled_ticks(catalog: Catalog, start: datetime, end: datetime) -> np.ndarray:
    """Every instant in (start, end] at which something of the catalog is scheduled, ascending, int64 microseconds."""
    schedules = {item.schedule for item in (*catalog.views, *catalog.sources) if item.schedule is not None}
    just_after = start + timedelta(microseconds=1)
    found = [ticks_between(schedule, just_after, end) for schedule in schedules]
    return np.unique(np.concatenate(found)) if found else np.array([], dtype=np.int64)


def _events(project: Project, start: datetime, end: datetime) -> dict[str, tuple[list[dict[str, Any]], np.ndarray]]:
    """The rows of each stream's batch source that become known in the interval, by push source, oldest first."""
    found = {}
    for stream in project.catalog.streams:
        frame, known = _known_within(project, stream.source, start, end)
        found[stream.name] = (frame.to_dicts(), _micros(frame, known))
    return found


def _requests(project: Project, model: Model, start: datetime, end: datetime) -> _Requests:
    """The spine's rows of the interval, in the order of their request times."""
    spine = model.spine
    inside = pl.col(spine.time_column).is_between(start, end, closed="left")
    frame = _known_within(project, spine.source, start, end)[0].filter(inside)
    frame = frame.sort(spine.time_column, maintain_order=True)
    columns = [pl.col(column).alias(key) for key, column in spine.keys]
    wanted = frame.select(*columns, *spine.request, spine.id_column)
    return _Requests(rows=wanted.to_dicts(), times=_micros(frame, spine.time_column))


def _known_within(project: Project, name: str, start: datetime, end: datetime) -> tuple[pl.DataFrame, str]:
    """The rows of a source that became known in `[start, end)`, oldest first, and the column that says when.

    They come from the source's extraction, or from the history that has landed where it has none.
    """
    source = project.catalog.source(name)
    if name in extracted_sources(project.root):
        known = source.known_field or source.timestamp_field
        frame = fetch(project, name, start=start, end=end)
    else:
        known = source.known_column
        frame = project.offline.scan(name).filter(pl.col(known).is_between(start, end, closed="left")).collect()
    return frame.sort(known, maintain_order=True), known


def _micros(frame: pl.DataFrame, column: str) -> np.ndarray:
    return frame.get_column(column).dt.cast_time_unit("us").to_physical().to_numpy()
