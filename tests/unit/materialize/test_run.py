from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tidemill.clock import to_micros
from tidemill.definitions import Aggregation, AggregationFunction, Catalog, Feature, Projection, Service, ValueType
from tidemill.errors import InputError, NotDefinedError
from tidemill.materialize.chunks import chunks_of
from tidemill.materialize.run import Materializer

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_the_newest_row_of_each_entity_is_served(world):
    world.happened(("JFK", T0, T0, 1.0, 1), ("JFK", T0 + HOUR, T0 + HOUR, 2.0, 1), ("LGA", T0, T0, 3.0, 1))
    (report,) = world.run(T0 + HOUR)
    assert (report.state, report.rows_written, report.cutoff) == ("succeeded", 2, T0 + HOUR)
    assert world.served("JFK", "LGA", "EWR") == [2.0, 3.0, None]


def test_nothing_after_the_cut_off_or_known_after_it_is_seen(world):
    world.happened(
        ("JFK", T0, T0, 1.0, 1), ("JFK", T0 + HOUR / 2, T0 + 2 * HOUR, 9.0, 1), ("JFK", T0 + 2 * HOUR, T0, 8.0, 1)
    )
    world.run(T0 + HOUR)
    assert world.served("JFK") == [1.0]


def test_the_next_run_reads_only_what_is_new(world):
    world.happened(("JFK", T0, T0, 1.0, 1), ("LGA", T0, T0, 3.0, 1))
    world.run(T0)
    world.happened(("JFK", T0 + HOUR, T0 + HOUR, 2.0, 1), file="b")
    (report,) = world.run(T0 + HOUR)
    assert (report.start, report.rows_read, report.rows_written) == (T0, 1, 1)
    assert world.served("JFK", "LGA") == [2.0, 3.0]


def test_rows_that_arrive_late_are_loaded_by_the_next_run(world):
    world.happened(("JFK", T0, T0, 1.0, 1))
    world.run(T0 + HOUR)
    late = T0 + HOUR / 2
    world.happened(("JFK", late, T0 + 2 * HOUR, 5.0, 1), ("LGA", late, T0 + 2 * HOUR, 6.0, 1), file="late")
    world.run(T0 + 3 * HOUR)
    assert world.served("JFK", "LGA") == [5.0, 6.0]


def test_a_correction_of_an_old_event_reaches_the_store(world):
    world.happened(("JFK", T0, T0, 1.0, 1))
    world.run(T0 + HOUR)
    world.happened(("JFK", T0, T0 + 2 * HOUR, 1.5, 1), file="correction")
    world.run(T0 + 3 * HOUR)
    assert world.served("JFK") == [1.5]


def test_null_keys_are_skipped_and_counted(world):
    world.happened(("JFK", T0, T0, 1.0, 1), (None, T0, T0, 2.0, 1))
    (report,) = world.run(T0)
    assert (report.state, report.rows_written, report.rows_skipped) == ("succeeded", 1, 1)


def test_a_run_with_nothing_to_do_says_so_and_leaves_no_row(world):
    world.happened(("JFK", T0, T0, 1.0, 1))
    world.run(T0)
    (report,) = world.run(T0)
    assert (report.state, report.cutoff) == ("current", T0)
    assert len(world.project.ledger.runs()) == 1


def test_a_failed_run_is_in_the_ledger_with_its_cause_and_is_done_again(world):
    (report,) = world.run(T0)  # there is no file yet
    assert report.state == "failed"
    assert "weather" in report.error
    world.happened(("JFK", T0, T0, 1.0, 1))
    (report,) = world.run(T0)
    assert report.state == "succeeded"
    assert [(run.state, run.attempt) for run in world.project.ledger.runs()] == [("succeeded", 2), ("failed", 1)]


def test_a_dry_run_counts_and_writes_nothing(world):
    world.happened(("JFK", T0, T0, 1.0, 1), ("LGA", T0, T0, 1.0, 1))
    (report,) = world.run(T0, dry_run=True)
    assert (report.state, report.rows_written) == ("dry-run", 2)
    assert world.served("JFK") == [None]
    assert world.project.ledger.runs() == []


def test_an_interval_in_the_future_is_refused(world):
    with pytest.raises(InputError, match="in the future"):
        world.project.materializer.materialize(until=T0 + HOUR, at=T0)


def test_an_unknown_view_is_told_by_name(world):
    with pytest.raises(NotDefinedError, match="wether"):
        world.run(T0, views=["wether"])


def test_another_worker_s_interval_is_left_to_it(world):
    world.happened(("JFK", T0, T0, 1.0, 1))
    world.project.ledger.claim("weather", start=None, end=T0, at=T0, by="elsewhere:1:1")
    (report,) = world.run(T0)
    assert report.state == "held"
    assert world.served("JFK") == [None]


def test_the_interval_of_a_dead_worker_is_ended_before_the_next_begins(world):
    world.happened(("JFK", T0, T0, 1.0, 1), ("JFK", T0 + HOUR, T0 + HOUR, 2.0, 1))
    world.project.ledger.claim("weather", start=None, end=T0, at=T0, by="elsewhere:1:1", lease=HOUR)
    reports = world.run(T0 + 2 * HOUR)
    assert [(report.start, report.end, report.state) for report in reports] == [
        (None, T0, "succeeded"),
        (T0, T0 + 2 * HOUR, "succeeded"),
    ]
    assert {run.state for run in world.project.ledger.runs()} == {"succeeded"}


def test_a_run_in_pieces_leaves_what_the_whole_would_have_left(world):
    world.happened(
        *((f"K{n % 7}", T0 + n * HOUR / 10, T0 + (n + n % 3) * HOUR / 10, float(n), n) for n in range(1_000))
    )
    until = T0 + 200 * HOUR
    whole = Materializer(world.project).materialize
    world.clock.set(until)
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": "201mb"})
    (report,) = whole(until=until, at=until)
    assert report.state == "succeeded"
    assert report.rows_read >= 1_000
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": None})
    served = world.served(*(f"K{n}" for n in range(7)))
    expected = [max(float(n) for n in range(1_000) if n % 7 == k) for k in range(7)]
    assert served == expected


def test_rows_of_one_instant_are_loaded_in_shares_of_their_keys(world):
    world.happened(*((f"K{n}", T0, T0, float(n), n) for n in range(10_000)))
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": "201mb"})
    (report,) = world.run(T0)
    assert (report.state, report.rows_read, report.rows_written) == ("succeeded", 10_000, 10_000)
    assert world.served("K0", "K5000", "K9999") == [0.0, 5000.0, 9999.0]


def test_a_scheduled_window_is_computed_in_shares_of_its_keys(world):
    world.happened(
        *((f"K{n % 4_000}", T0 + n % 50 * HOUR / 10, T0 + n % 50 * HOUR / 10, float(n), n) for n in range(20_000))
    )
    use_window(world)
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": "201mb"})
    (report,) = world.run(T0 + 5 * HOUR)
    assert (report.state, report.rows_read, report.rows_written) == ("succeeded", 4_000, 4_000)
    names = [f"K{n}" for n in (0, 1, 1_999, 3_999)]
    expected = [sum(float(n) for n in range(20_000) if f"K{n % 4_000}" == name) for name in names]
    assert world.project.online.read("windowed", [{"origin": name} for name in names]).values["temp_sum"] == expected
    (chunk,) = chunks_of(
        world.project.offline, world.project.catalog.view("weather_sum"), None, T0 + 5 * HOUR, limit="201mb"
    )
    assert chunk.shares > 2


def use_window(world) -> None:
    """The weather's sums over a day in place of the weather itself."""
    before = world.project.catalog
    total = Aggregation(
        name="temp_sum",
        function=AggregationFunction.SUM,
        column="temp",
        window=timedelta(days=1),
        hop=timedelta(minutes=5),
    )
    view = replace(
        before.view("weather"),
        name="weather_sum",
        features=(Feature(name="temp_sum", dtype=ValueType.DOUBLE),),
        aggregations=(total,),
    )
    service = Service(name="windowed", projections=(Projection(view="weather_sum", features=("temp_sum",)),))
    world.project.catalogs.add(replace(before, views=(view,), services=(service,)), at=T0)
    world.project.reload()


def test_a_view_removed_while_it_runs_leaves_nothing_behind(world):
    world.happened(("JFK", T0, T0, 1.0, 1))
    before = world.project.catalog
    world.project.catalogs.add(Catalog(**{**vars(before), "views": (), "services": ()}), at=T0)
    (report,) = world.run(T0)
    assert report.state == "failed"
    assert "removed while it ran" in report.error
    assert world.served("JFK") == [None]


def test_the_served_cut_off_is_the_newest_finished_run(world):
    world.happened(("JFK", T0, T0, 1.0, 1))
    world.run(T0)
    world.clock.set(T0 + 5 * HOUR)
    world.run(T0 + 4 * HOUR)
    finished, cutoffs = world.project.ledger.cutoffs("weather")
    assert finished.tolist() == [to_micros(T0), to_micros(T0 + 5 * HOUR)]
    assert cutoffs.tolist() == [to_micros(T0), to_micros(T0 + 4 * HOUR)]
