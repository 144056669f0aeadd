from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tidemill.errors import InputError, NotDefinedError, OnlineStoreUnavailableError
from tidemill.materialize.backfill import Estimate, backfill, switch_name, unfinished_end
from tidemill.schedule.switches import Switches

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def history(world, hours: int = 100) -> None:
    world.happened(*((f"K{n % 7}", T0 + n * HOUR, T0 + n * HOUR, float(n), n) for n in range(hours)))
    world.clock.set(T0 + 1_000 * HOUR)


def newest(hours: int) -> list[float]:
    return [max(float(n) for n in range(hours) if n % 7 == k) for k in range(7)]


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_interval_is_loaded_in_pieces(world, parallel: int):
    history(world)
    seen: list[Estimate] = []
    (report,) = backfill(
        world.project, "weather", start=T0 - HOUR, end=T0 + 50 * HOUR, parallel=parallel, estimate=seen.append
    )
    assert (report.state, report.rows_read, report.cutoff) == ("succeeded", 51, T0 + 50 * HOUR)
    assert world.served(*(f"K{n}" for n in range(7))) == newest(51)
    assert [one.done for one in seen] == list(range(1, 49))
    assert seen[-1].seconds_left == 0


def test_a_newer_value_is_never_overwritten(world):
    history(world)
    world.run(T0 + 99 * HOUR)
    served = world.served(*(f"K{n}" for n in range(7)))
    (report,) = backfill(world.project, "weather", start=T0 - HOUR, end=T0 + 50 * HOUR)
    assert report.rows_written == 0
    assert world.served(*(f"K{n}" for n in range(7))) == served == newest(100)
    assert world.project.ledger.last_cutoff("weather") == T0 + 99 * HOUR


def test_a_paused_backfill_goes_on_where_it_was(world):
    history(world)
    switches = Switches(world.project.database, "flights")
    done = 0

    def pause_after_ten(steps: int) -> None:
        nonlocal done
        done += steps
        if done == 10:
            switches.pause(switch_name("weather"), at=T0)

    interval = {"start": T0 - HOUR, "end": T0 + 50 * HOUR}
    (report,) = backfill(world.project, "weather", progress=pause_after_ten, **interval)
    assert (report.state, done) == ("paused", 10)
    switches.resume(switch_name("weather"), at=T0 + HOUR)
    (report,) = backfill(world.project, "weather", progress=pause_after_ten, **interval)
    assert (report.state, done) == ("succeeded", 48)
    assert report.rows_read == 51
    assert len(world.project.ledger.runs()) == 1


@pytest.mark.parametrize("redefined", [False, True])
def test_a_backfill_that_failed_goes_on_where_it_was_unless_definitions_changed(world, redefined: bool):
    history(world)
    write, written = world.project.online.write, []

    def away_after_ten(*arguments, **named):
        written.append(arguments)
        if len(written) > 10:
            raise OnlineStoreUnavailableError("Redis does not answer.")
        return write(*arguments, **named)

    world.project.online.write = away_after_ten
    (report,) = backfill(world.project, "weather", start=T0 - HOUR, end=T0 + 50 * HOUR)
    assert report.state == "failed"
    world.project.online.write = write
    if redefined:
        world.project.catalogs.add(replace(world.project.catalog, services=()), at=T0)
        world.project.reload()
    assert unfinished_end(world.project, "weather", start=T0 - HOUR) == T0 + 50 * HOUR
    pieces: list[int] = []
    (report,) = backfill(
        world.project, "weather", start=T0 - HOUR, end=T0 + 50 * HOUR, piece=HOUR, progress=pieces.append
    )
    assert (report.state, report.rows_read) == ("succeeded", 51)
    assert len(pieces) == (51 if redefined else 38)
    assert unfinished_end(world.project, "weather", start=T0 - HOUR) is None
    assert [(run.attempt, run.state) for run in world.project.ledger.runs()] == [(2, "succeeded"), (1, "failed")]


def test_a_backfill_that_is_at_work_is_found_by_its_start(world):
    """The same command in two terminals is the same backfill, though `now` is another."""
    history(world)
    start, end = T0 - HOUR, T0 + 50 * HOUR
    seen: list[datetime | None] = []
    states: list[str] = []

    def meanwhile(_steps: int) -> None:
        if not seen:
            seen.append(unfinished_end(world.project, "weather", start=start))
            states.extend(report.state for report in backfill(world.project, "weather", start=start, end=end))

    backfill(world.project, "weather", start=start, end=end, progress=meanwhile)
    assert (seen, states) == ([end], ["held"])


def test_a_finished_backfill_may_be_done_again(world):
    history(world)
    start, end = T0 - HOUR, T0 + 50 * HOUR
    backfill(world.project, "weather", start=start, end=end)
    (report,) = backfill(world.project, "weather", start=start, end=end)
    assert (report.state, report.rows_written, report.rows_read) == ("succeeded", 0, 51)


def test_a_backfill_with_a_gap_before_it_is_no_cut_off(world):
    history(world)
    backfill(world.project, "weather", start=T0 + 10 * HOUR, end=T0 + 50 * HOUR)
    assert world.project.ledger.last_cutoff("weather") is None
    world.run(T0 + 99 * HOUR)
    assert world.served(*(f"K{n}" for n in range(7))) == newest(100)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [(T0 + HOUR, T0, "before it begins"), (T0, T0 + 2_000 * HOUR, "in the future")],
)
def test_an_interval_that_cannot_be_is_refused(world, start: datetime, end: datetime, message: str):
    history(world)
    with pytest.raises(InputError, match=message):
        backfill(world.project, "weather", start=start, end=end)


def test_an_unknown_view_is_told_by_name(world):
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        backfill(world.project, "wether", start=T0, end=T0 + HOUR)


def test_a_source_that_is_missing_ends_in_the_ledger(world):
    world.clock.set(T0 + HOUR)
    (report,) = backfill(world.project, "weather", start=T0 - HOUR, end=T0)
    assert report.state == "failed"
    assert world.project.ledger.runs()[0].error == report.error


def test_a_backfill_keeps_within_the_memory_limit_however_many_pieces_are_at_work(world):
    """Of 20,000 rows in two hours and one full minute no more than a thousand are held at once by either worker."""
    rows = [(f"K{n}", T0 + n % 120 * HOUR / 60, T0 + n % 120 * HOUR / 60, float(n), n) for n in range(12_000)]
    rows += [(f"L{n}", T0 + 3 * HOUR, T0 + 3 * HOUR, float(n), n) for n in range(8_000)]
    world.happened(*rows)
    world.clock.set(T0 + 4 * HOUR)
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": "201mb"})
    held: list[int] = []
    write = world.project.online.write

    def watched(view, frame, **more):
        held.append(frame.height)
        return write(view, frame, **more)

    world.project.online.write = watched
    (report,) = backfill(world.project, "weather", start=T0 - HOUR, end=T0 + 4 * HOUR, piece=HOUR, parallel=2)
    assert (report.state, report.rows_read, report.rows_written) == ("succeeded", 20_000, 20_000)
    assert max(held) < 1_500
    assert world.served("K0", "K11999", "L7999") == [0.0, 11999.0, 7999.0]
