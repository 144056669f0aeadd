"""The worker does what is due: in order, once, again after a failure, and not while it is paused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr
from waiting import PATIENCE, wait_until

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions import (
    Catalog,
    CatchUp,
    Entity,
    Feature,
    Projection,
    Schedule,
    Service,
    Source,
    ValueType,
    View,
)
from tidemill.definitions.catalog import CodeReference, LabelDefinition, Model, SpineDefinition, Split, Trigger
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.extract import extract
from tidemill.extract.landing import alone
from tidemill.predictions import PredictionRecord
from tidemill.project import Project, open_project
from tidemill.schedule.switches import Switches
from tidemill.schedule.tasks import Kind, tasks_of
from tidemill.schedule.worker import TaskReport, Worker
from tidemill.settings import Settings

EXTRACT = """
import polars as pl
from datetime import timedelta
from tidemill.extract import extracts

@extracts(source="measured")
def measured(start, end):
    hours = pl.datetime_range(start, end, "1h", closed="left", time_zone="UTC", eager=True)
    return pl.DataFrame({"event_time": hours, "known_time": hours}).with_columns(origin=pl.lit("JFK"), temp=1.0)
"""


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2013, 10, 1, hour, minute, tzinfo=UTC)


@dataclass
class OnlineLoads:
    """Stands where the materializer stands: loads a view through the ledger, and fails when told to."""

    project: Project
    loads: list[tuple[str, datetime | None, datetime]] = field(default_factory=list)
    failing: bool = False

    def materialize(
        self, *, until: datetime, views: Sequence[str], at: datetime, kind: str = "manual"
    ) -> list[TaskReport]:
        (view,) = views
        start = self.project.ledger.last_cutoff(view)
        if start is not None and start >= until:
            return []
        if self.failing:
            raise OnlineStoreUnavailableError("The online store does not answer.")
        claim = self.project.ledger.claim(view, start=start, end=until, at=at, kind=kind)
        if claim is None:
            return []
        self.loads.append((view, start, until))
        self.project.ledger.succeed(claim, cutoff=until, rows_read=2, rows_written=1, rows_skipped=0, at=at)
        return [
            TaskReport(
                kind=kind, view=view, start=start, end=until, cutoff=until, rows_read=2, rows_written=1, rows_skipped=0,
                seconds=0.0, state="succeeded",
            )
        ]  # fmt: skip


def catalog_with(schedule: Schedule, *, source_schedule: Schedule | None = None) -> Catalog:
    source = Source(
        name="measured",
        path="data/measured",
        timestamp_field="event_time",
        known_field="known_time",
        schedule=source_schedule,
    )
    view = View(
        name="weather",
        entities=("origin",),
        join_keys=("origin",),
        features=(Feature(name="temp", dtype=ValueType.DOUBLE),),
        source="measured",
        schedule=schedule,
    )
    entity = Entity(name="origin", join_key="origin", dtype=ValueType.STRING)
    service = Service(name="weather_v1", projections=(Projection(view="weather", features=("temp",)),))
    return Catalog(project="airports", entities=(entity,), sources=(source,), views=(view,), services=(service,))


HOURLY = Schedule(cron="5 * * * *")


class Airports:
    def __init__(self, root: Path, metadata_url: str) -> None:
        (root / "feature_store.yaml").write_text("project: airports\n")
        self.clock = ManualClock(at(0))
        self.project = open_project(root, clock=self.clock, settings=Settings(metadata_url=SecretStr(metadata_url)))
        self.loads = OnlineLoads(self.project)
        self.project.__dict__["materializer"] = self.loads

    def apply(self, catalog: Catalog) -> None:
        self.project.catalogs.add(catalog, at=at(0))
        self.project.reload()


@pytest.fixture
def airports(tmp_path: Path, metadata_url: str) -> Iterator[Airports]:
    found = Airports(tmp_path, metadata_url)
    found.apply(catalog_with(HOURLY))
    yield found
    found.project.close()


def test_a_view_is_materialized_at_each_tick_and_not_between(airports: Airports) -> None:
    worker = Worker(airports.project)
    for minute in range(0, 180, 5):
        worker.run_due(at(0) + timedelta(minutes=minute))
    assert [until for _, _, until in airports.loads.loads] == [
        at(0) - timedelta(minutes=55), at(0, 5), at(1, 5), at(2, 5),
    ]  # fmt: skip
    assert worker.run_due(at(2, 30)) == []


def test_the_report_says_what_was_done(airports: Airports) -> None:
    (report,) = Worker(airports.project).run_due(at(3, 5))
    assert (report.kind, report.view, report.end, report.cutoff) == (Kind.MATERIALIZE, "weather", at(3, 5), at(3, 5))
    assert (report.rows_read, report.rows_written, report.state) == (2, 1, "succeeded")


def test_a_second_worker_finds_the_work_done(airports: Airports) -> None:
    first, second = Worker(airports.project), Worker(airports.project)
    for hour in range(1, 5):
        assert len(first.run_due(at(hour, 5))) == 1
        assert second.run_due(at(hour, 5)) == []


def test_after_downtime_every_tick_is_run_where_that_is_declared(airports: Airports) -> None:
    airports.apply(catalog_with(replace(HOURLY, catch_up=CatchUp.ALL)))
    worker = Worker(airports.project)
    worker.run_due(at(1, 5))
    assert [report.end for report in worker.run_due(at(4, 30))] == [at(2, 5), at(3, 5), at(4, 5)]


def test_extraction_comes_first_and_lands_what_became_known_since_the_last_tick(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    worker = Worker(airports.project)
    reports = worker.run_due(at(3, 10)) + worker.run_due(at(5, 10))
    assert [(report.kind, report.view) for report in reports] == [
        (Kind.EXTRACT, "extract:measured"), (Kind.MATERIALIZE, "weather"),
        (Kind.EXTRACT, "extract:measured"), (Kind.MATERIALIZE, "weather"),
    ]  # fmt: skip
    landed = pl.scan_parquet(airports.project.root / "data/measured").collect()
    assert landed["known_time"].sort().to_list() == [at(2, 1), at(3, 1), at(4, 1)]
    assert [(run.start, run.end) for run in airports.project.ledger.runs("extract:measured")] == [
        (at(3, 1), at(5, 1)), (at(2, 1), at(3, 1)),
    ]  # fmt: skip


def test_a_view_waits_for_an_extraction_that_failed(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    worker = Worker(airports.project)
    (report,) = worker.run_due(at(3, 10))
    assert (report.view, report.state) == ("extract:measured", "failed")
    assert "division by zero" in str(report.error)
    assert airports.loads.loads == []
    (airports.project.root / "extract.py").write_text(EXTRACT)
    assert [report.state for report in worker.run_due(at(3, 11))] == ["succeeded", "succeeded"]


def test_a_view_waits_for_an_extraction_that_its_jitter_holds_back(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    late = Schedule(cron="5 * * * *", jitter=timedelta(minutes=20))
    airports.apply(catalog_with(HOURLY, source_schedule=late))
    worker = Worker(airports.project)
    done = [
        [report.view for report in reports]
        for minute in range(30)
        if (reports := worker.run_due(at(3, 5) + timedelta(minutes=minute)))
    ]
    assert done == [["extract:measured", "weather"]]


def test_how_long_an_extraction_took_is_in_the_ledger(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    airports.clock.set(at(9))
    Worker(airports.project).run_due(at(3, 10))
    (run,) = airports.project.ledger.runs("extract:measured")
    assert run.finished_at is not None
    assert run.finished_at > run.started_at == at(3, 10)


def test_what_a_scheduled_extraction_put_in_quarantine_is_in_its_run_and_in_the_log(
    airports: Airports, caplog: pytest.LogCaptureFixture
) -> None:
    contract = (
        "from tidemill.extract import Column, Contract\n\nCONTRACT = Contract(columns={'temp': Column(float, max=0)}"
    )
    body = EXTRACT.replace("\n\n@", f"\n{contract}, most_bad=1)\n\n@", 1)
    (airports.project.root / "extract.py").write_text(body.replace('"measured")', '"measured", contract=CONTRACT)'))
    airports.apply(catalog_with(HOURLY, source_schedule=HOURLY))
    report, _ = Worker(airports.project).run_due(at(3, 5))
    assert (report.rows_read, report.rows_written, report.rows_skipped) == (1, 0, 1)
    (run,) = airports.project.ledger.runs("extract:measured")
    assert (run.rows_read, run.rows_written, run.rows_skipped) == (1, 0, 1)
    assert "1 rows of 'measured' are in quarantine: temp is more than 0 (1)." in caplog.text


def test_a_source_that_somebody_extracts_by_hand_is_no_failure_and_comes_next_time(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=HOURLY))
    worker = Worker(airports.project)
    with alone(airports.project.state / "locks" / "extract-measured.lock", "extracting"):
        for minute in range(5, 60):
            assert worker.run_due(at(3, minute)) == []
    assert airports.project.ledger.runs() == []
    assert worker.given_up(at(4, 0)) == []
    assert [report.state for report in worker.run_due(at(4, 0))] == ["succeeded", "succeeded"]
    (run,) = airports.project.ledger.runs("extract:measured")
    assert (run.end, run.attempt, run.takeovers) == (at(3, 5), 1, 0)


def test_the_first_scheduled_extraction_goes_on_where_one_by_hand_has_ended(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    airports.apply(catalog_with(HOURLY, source_schedule=HOURLY))
    extract(airports.project, start=at(0) - timedelta(days=2), end=at(0) - timedelta(days=1))
    Worker(airports.project).run_due(at(5, 5))
    hours = airports.project.offline.scan("measured").collect().get_column("event_time")
    assert hours.sort().to_list() == [at(0) + timedelta(hours=hour) for hour in range(-48, 6)]


def test_a_source_that_nothing_extracts_holds_nothing_back(airports: Airports) -> None:
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *")))
    assert [report.view for report in Worker(airports.project).run_due(at(3, 10))] == ["weather"]


def test_a_failed_run_is_tried_again_after_growing_waits_and_then_given_up(airports: Airports) -> None:
    airports.apply(catalog_with(replace(HOURLY, attempts=3)))
    airports.loads.failing = True
    worker = Worker(airports.project)
    tried = [
        second
        for second in range(0, 3_000, 10)
        if worker.run_due(at(3, 5) + timedelta(seconds=second))
    ]  # fmt: skip
    assert tried == [0, 30, 90]
    (letter,) = worker.given_up(at(3, 55))
    assert (letter.view, letter.end, letter.state) == ("weather", at(3, 5), "given up")


def test_a_run_that_began_in_time_is_tried_again_where_missed_ticks_are_skipped(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    skipping = Schedule(cron="5 * * * *", catch_up=CatchUp.SKIP, attempts=4)
    airports.apply(catalog_with(HOURLY, source_schedule=skipping))
    worker = Worker(airports.project)
    tried = [second for second in range(0, 3_000, 10) if worker.run_due(at(3, 5) + timedelta(seconds=second))]
    assert tried == [0, 30, 90, 210]
    assert [letter.view for letter in worker.given_up(at(3, 55))] == ["extract:measured"]
    assert worker.waiting(at(3, 55)) == {"weather": ("extract:measured",)}, "half of the data would be loaded"
    reports = Worker(airports.project).run_due(at(4, 7))
    assert [report.view for report in reports] == ["weather"], "a tick that nobody began is skipped"


def test_what_waits_for_another_task_is_not_skipped_meanwhile(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(replace(HOURLY, catch_up=CatchUp.SKIP), source_schedule=Schedule(cron="5 * * * *")))
    worker = Worker(airports.project)
    assert [report.state for report in worker.run_due(at(3, 5))] == ["failed"]
    (airports.project.root / "extract.py").write_text(EXTRACT)
    assert [(report.view, report.state) for report in worker.run_due(at(3, 9))] == [
        ("extract:measured", "succeeded"),
        ("weather", "succeeded"),
    ]


@pytest.mark.parametrize("catch_up", [CatchUp.LATEST, CatchUp.ALL])
def test_the_next_tick_begins_anew_and_does_the_missed_work(airports: Airports, catch_up: CatchUp) -> None:
    airports.apply(catalog_with(replace(HOURLY, attempts=1, catch_up=catch_up)))
    worker = Worker(airports.project)
    worker.run_due(at(2, 5))
    airports.loads.failing = True
    worker.run_due(at(3, 5))
    airports.loads.failing = False
    assert worker.run_due(at(3, 50)) == []
    assert [(report.start, report.end) for report in worker.run_due(at(4, 5))] == [(at(2, 5), at(4, 5))]


def test_what_was_given_up_is_extracted_with_the_next_tick_where_every_tick_is_run(airports: Airports) -> None:
    broken = EXTRACT.replace("temp=1.0", "temp=1 / 0")
    (airports.project.root / "extract.py").write_text(EXTRACT)
    every = Schedule(cron="1 * * * *", attempts=2, catch_up=CatchUp.ALL)
    airports.apply(catalog_with(HOURLY, source_schedule=every))
    worker = Worker(airports.project)
    worker.run_due(at(1, 10))
    (airports.project.root / "extract.py").write_text(broken)
    assert [len(worker.run_due(at(2, minute))) for minute in (1, 2, 3)] == [1, 1, 0]
    assert [letter.end for letter in worker.given_up(at(2, 59))] == [at(2, 1)]
    (airports.project.root / "extract.py").write_text(EXTRACT)
    ends = [report.end for report in worker.run_due(at(4, 10)) if report.view == "extract:measured"]
    assert ends == [at(3, 1), at(4, 1)]
    landed = pl.scan_parquet(airports.project.root / "data/measured").collect()
    assert landed["known_time"].sort().to_list() == [at(0, 1), at(1, 1), at(2, 1), at(3, 1)]
    assert worker.given_up(at(4, 11)) == []


def test_what_would_be_done_is_what_is_done(airports: Airports) -> None:
    """Not what is paused, waits for its next try, was given up, or waits for such a one."""
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *", attempts=2)))
    worker, switches = Worker(airports.project), Switches(airports.project.database, "airports")

    def told(now: datetime) -> list[tuple[str, list[datetime]]]:
        return [(task.name, [due.tick for due in runs]) for task, runs in Worker(airports.project).would_do(now)]

    assert told(at(3, 10)) == [("extract:measured", [at(3, 1)]), ("weather", [at(3, 5)])]
    worker.run_due(at(3, 10))
    assert told(at(3, 10)) == [], "the extraction waits to be tried again"
    worker.run_due(at(3, 11))
    assert told(at(3, 30)) == [], "it was given up"
    switches.retry("extract:measured", at=at(3, 31))
    switches.pause("weather", at=at(3, 31))
    assert told(at(3, 32)) == [("extract:measured", [at(3, 1)])]
    switches.pause("*", at=at(3, 33))
    assert told(at(3, 34)) == []


def test_what_was_given_up_is_tried_again_on_request(airports: Airports) -> None:
    airports.apply(catalog_with(replace(HOURLY, attempts=1)))
    airports.loads.failing = True
    worker = Worker(airports.project)
    worker.run_due(at(3, 5))
    airports.loads.failing = False
    assert worker.run_due(at(3, 30)) == []
    Switches(airports.project.database, "airports").retry("weather", at=at(3, 31))
    assert [report.state for report in worker.run_due(at(3, 32))] == ["succeeded"]


def test_failures_in_the_ledger_count_for_every_worker(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT.replace("temp=1.0", "temp=1 / 0"))
    airports.apply(catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *", attempts=2)))
    first, second = Worker(airports.project), Worker(airports.project)
    assert len(first.run_due(at(3, 10))) == 1
    assert second.run_due(at(3, 10)) == []
    assert len(second.run_due(at(3, 11))) == 1
    assert first.run_due(at(3, 50)) == []
    (letter,) = Worker(airports.project).given_up(at(3, 50))
    assert "division by zero" in str(letter.error)


def test_a_paused_task_rests_until_it_is_resumed(airports: Airports) -> None:
    switches, worker = Switches(airports.project.database, "airports"), Worker(airports.project)
    switches.pause("weather", reason="the station is being moved", at=at(2))
    assert worker.run_due(at(3, 5)) == []
    assert switches.paused()["weather"].reason == "the station is being moved"
    switches.resume("weather", at=at(4))
    assert len(worker.run_due(at(4, 1))) == 1
    switches.pause("*", at=at(5))
    assert worker.run_due(at(6, 5)) == []


def test_a_run_that_takes_too_long_is_given_up_and_counts_as_failed(airports: Airports) -> None:
    slow = "import time\n" + EXTRACT.replace("hours = ", "for _ in range(2_000): time.sleep(0.01)\n    hours = ")
    (airports.project.root / "extract.py").write_text(slow)
    limited = Schedule(cron="1 * * * *", timeout=timedelta(milliseconds=200))
    airports.apply(catalog_with(HOURLY, source_schedule=limited))
    (report,) = Worker(airports.project).run_due(at(3, 10))
    assert report.state == "failed"
    assert "timeout" in str(report.error)


def model_with(*triggers: Trigger) -> Model:
    return Model(
        name="late",
        service="weather_v1",
        spine=SpineDefinition(source="measured", time_column="event_time", id_column="id", keys=()),
        label=LabelDefinition(source="measured", column="late", id_column="id"),
        estimator=CodeReference(module="estimators", qualname="make", digest="0"),
        split=Split(test=timedelta(days=1)),
        metrics=("roc_auc",),
        retrain=triggers,
    )


def test_models_are_retrained_last_at_their_schedule_and_looked_at_daily(airports: Airports) -> None:
    weekly = Trigger(kind="schedule", settings=(("cron", "0 6 * * 1"), ("timezone", "UTC")))
    drift = Trigger(kind="drift", settings=(("psi", 0.2),))
    airports.apply(replace(catalog_with(HOURLY), models=(model_with(weekly, drift),)))
    asked: list[tuple[str, datetime]] = []
    worker = Worker(airports.project, retrain=lambda _project, model, now: asked.append((model, now)))
    assert [task.name for task in worker.tasks] == ["weather", "retrain:late", "retrain:late:check"]
    for hour in range(24 * 14):
        worker.run_due(at(0) + timedelta(hours=hour))
    scheduled = airports.project.ledger.runs("retrain:late", limit=100)
    checks = airports.project.ledger.runs("retrain:late:check", limit=100)
    assert [run.end.strftime("%m-%d %H") for run in reversed(scheduled)] == ["09-30 06", "10-07 06", "10-14 06"]
    assert len(checks) == 14
    assert len(asked) == 17


def test_a_model_waits_for_the_views_it_reads_and_the_sources_it_learns_from(airports: Airports) -> None:
    (airports.project.root / "extract.py").write_text(EXTRACT)
    weekly = Trigger(kind="schedule", settings=(("cron", "5 * * * *"), ("timezone", "UTC")))
    catalog = catalog_with(HOURLY, source_schedule=Schedule(cron="1 * * * *"))
    airports.apply(replace(catalog, models=(model_with(weekly),)))
    asked: list[datetime] = []
    worker = Worker(airports.project, retrain=lambda _project, _model, now: asked.append(now))
    assert worker.tasks[-1].after == ("extract:measured", "weather")
    airports.loads.failing = True
    assert [(report.view, report.state) for report in worker.run_due(at(3, 10))] == [
        ("extract:measured", "succeeded"), ("weather", "failed"),
    ]  # fmt: skip
    airports.loads.failing = False
    reports = worker.run_due(at(3, 11))
    assert [(report.view, report.state) for report in reports] == [
        ("weather", "succeeded"),
        ("retrain:late", "succeeded"),
    ]
    assert asked == [at(3, 11)]


def test_without_a_way_to_retrain_models_are_left_alone() -> None:
    catalog = replace(catalog_with(HOURLY), models=(model_with(Trigger(kind="drift", settings=(("psi", 0.2),))),))
    assert [task.name for task in tasks_of(catalog, extracted=(), retrain=False)] == ["weather"]


def test_the_loop_takes_up_new_definitions_and_stops_when_told(airports: Airports) -> None:
    stop, seen = threading.Event(), threading.Event()
    airports.clock.set(at(3, 5))
    worker = Worker(airports.project)

    def note(report: TaskReport) -> None:
        seen.set()

    thread = threading.Thread(target=worker.run, args=(stop,), kwargs={"on_report": note})
    thread.start()
    assert seen.wait(PATIENCE)
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [view for view, _, _ in airports.loads.loads] == ["weather"]


def test_the_loop_outlives_a_file_of_the_user_s_that_cannot_be_imported(
    airports: Airports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidemill.schedule.worker._LONGEST_SLEEP", 0.01)
    (airports.project.root / "extract.py").write_text("import what_nobody_installed\n")
    airports.clock.set(at(3, 5))
    stop, seen = threading.Event(), threading.Event()
    loop = partial(Worker(airports.project).run, stop, on_report=lambda _report: seen.set())
    thread = threading.Thread(target=loop)
    thread.start()
    wait_until(lambda: "extract.py cannot be imported: ModuleNotFoundError" in caplog.text)
    (airports.project.root / "extract.py").write_text(EXTRACT)
    assert seen.wait(PATIENCE)
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_loop_compacts_the_log_of_predictions_that_are_a_day_old(airports: Airports) -> None:
    log = airports.project.predictions
    for number, answered in enumerate((at(20) - timedelta(days=1), at(0))):
        made = PredictionRecord(
            prediction_id=f"p-{number}",
            model="delays",
            version=1,
            service="weather_v1",
            catalog_digest="abc",
            at=to_micros(answered),
            id=None,
            keys="{}",
            request="{}",
            features="{}",
            statuses="{}",
            prediction=0.5,
        )
        log.append([made])
    log.close()
    before = log.scan()
    airports.clock.set(at(23))
    stop = threading.Event()
    Worker(airports.project).run(stop, on_report=lambda _report: stop.set())
    assert sorted(file.suffix for file in log.folder.iterdir()) == [".jsonl", ".parquet"]
    assert log.scan().equals(before)
