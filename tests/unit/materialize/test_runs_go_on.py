"""A run that failed at a chunk is tried again: it goes on there where that loses nothing, and else begins anew."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from tidemill.cli.main import app
from tidemill.definitions import Schedule
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.materialize.backfill import backfill
from tidemill.schedule.worker import Worker

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
END = T0 + 10 * HOUR
PLACES = 3


@pytest.fixture
def chunked(world: Any) -> Any:
    """Ten hours of three places, and so little memory that each hour is a chunk: for four rows, after 200 MB."""
    world.happened(*hours(range(10)))
    world.project.settings = world.project.settings.model_copy(update={"memory_limit": "209717700b"})
    return world


def hours(numbers: range) -> list[tuple[str, datetime, datetime, float, int]]:
    return [(f"K{place}", T0 + n * HOUR, T0 + n * HOUR, float(n), n) for n in numbers for place in range(PLACES)]


@contextmanager
def away_after(world: Any, writes: int | None, error: type[BaseException] = OnlineStoreUnavailableError) -> Any:
    """Redis goes away after so many writes, and is back at the end; gives the hours of which rows were written."""
    online = world.project.online
    write, written = online.write, list[int]()

    def away(view: str, frame: Any, **named: Any) -> Any:
        if writes is not None and len(written) == writes:
            raise error("Redis does not answer.")
        result = write(view, frame, **named)
        written.append(max(frame["wind"], default=-1))
        return result

    online.write = away
    try:
        yield written
    finally:
        online.write = write


def fail_after(world: Any, chunks: int, until: datetime = END) -> None:
    with away_after(world, chunks):
        (report,) = world.run(until)
    assert (report.state, report.error) == ("failed", "Redis does not answer.")


def note(world: Any) -> Any:
    return world.project.online.resp.call("GET", "tm:{flights}:run:weather")


def state(world: Any) -> dict[str, tuple[float | None, int | None]]:
    names = [f"K{place}" for place in range(PLACES + 2)]
    found = world.project.online.read("s", [{"origin": name} for name in names]).values
    return dict(zip(names, zip(found["temp"], found["wind"], strict=True), strict=True))


def clean_state(world: Any, until: datetime) -> dict[str, tuple[float | None, int | None]]:
    """What one run that nothing disturbs leaves."""
    world.project.online.resp.call("FLUSHALL")
    world.project.online.write("weather", world.project.offline.latest("weather", end=until), learned=until)
    return state(world)


def test_the_next_try_goes_on_at_the_first_chunk_that_was_not_done_and_each_row_counts_once(chunked: Any) -> None:
    fail_after(chunked, 7)
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END)
    assert (report.state, written) == ("succeeded", [7, 8, 9])
    assert (report.rows_read, report.rows_written) == (30, 30)
    assert T0 + 6 * HOUR < report.went_on_from < T0 + 7 * HOUR
    runs = chunked.project.ledger.runs()
    assert [(run.state, run.attempt, run.rows_read) for run in runs] == [("succeeded", 2, 30), ("failed", 1, 0)]
    found = state(chunked)
    assert found == clean_state(chunked, END)


def test_a_run_that_fails_again_and_again_comes_further_each_time(chunked: Any) -> None:
    fail_after(chunked, 4)
    fail_after(chunked, 0)  # nothing works: what the try before had done is kept
    fail_after(chunked, 3)
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END)
    assert (report.state, written, report.rows_read) == ("succeeded", [7, 8, 9], 30)
    assert [run.attempt for run in chunked.project.ledger.runs()] == [4, 3, 2, 1]
    found = state(chunked)
    assert found == clean_state(chunked, END)


def test_a_scheduled_run_goes_on_at_its_next_try_and_the_next_tick_begins_anew(chunked: Any) -> None:
    catalog = chunked.project.catalog
    slow = replace(catalog.view("weather"), schedule=Schedule(cron="0 0,10 * * *"))
    chunked.project.catalogs.add(replace(catalog, views=(slow,)), at=T0)
    chunked.project.reload()
    worker, tries = Worker(chunked.project), [END, END + HOUR / 10, END + 20 * HOUR]
    written: list[list[int]] = []
    for at, chunks in zip(tries, (7, 1, None), strict=True):
        chunked.clock.set(at)
        with away_after(chunked, chunks) as done:
            worker.run_due(at)
        written.append(list(done))
    assert written == [[0, 1, 2, 3, 4, 5, 6], [7], list(range(10))]
    runs = chunked.project.ledger.runs()
    assert [(run.end, run.state, run.attempt) for run in runs] == [
        (T0 + 24 * HOUR, "succeeded", 1),
        (END, "failed", 2),
        (END, "failed", 1),
    ]


def more_rows(*rows: tuple[str, datetime, datetime, float, int]) -> Callable[[Any], None]:
    return lambda world: world.happened(*rows, file="more")


ANEW: dict[str, Callable[[Any], Any]] = {
    "a row came to light": more_rows(("K0", T0 + HOUR, T0 + HOUR, 1.5, 1)),
    "a row of a new entity came to light": more_rows(("K3", T0, T0, 3.5, 0)),
    "a correction came to light": more_rows(("K0", T0 + 2 * HOUR, T0 + 3 * HOUR, 2.5, 2)),
    "its known time is null": more_rows(("K3", T0 + HOUR, None, 3.5, 1)),  # pyright: ignore[reportArgumentType]
    "a file was replaced": lambda world: world.happened(*hours(range(10))),
    "Redis lost its data": lambda world: world.project.online.resp.call("FLUSHALL"),
    "the view was deleted": lambda world: world.project.online.delete_view("weather"),
    "the store was forgotten": lambda world: world.project.ledger.forget("weather", at=END),
    "the layout is another": lambda world: setattr(
        world.project.online, "settings", world.project.settings.model_copy(update={"online_layout": "packed"})
    ),
}


@pytest.mark.parametrize("change", ANEW)
def test_the_next_try_begins_anew_where_what_was_done_does_not_count(chunked: Any, change: str) -> None:
    fail_after(chunked, 7)
    ANEW[change](chunked)
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END)
    assert (report.state, report.went_on_from, written) == ("succeeded", None, list(range(10)))
    assert report.rows_read == chunked.project.offline.scan("weather").collect().height
    found = state(chunked)
    assert found == clean_state(chunked, END)


def test_a_run_by_other_definitions_begins_anew(chunked: Any) -> None:
    fail_after(chunked, 7)
    catalog = chunked.project.catalog
    described = replace(catalog.view("weather"), description="the weather")
    chunked.project.catalogs.add(replace(catalog, views=(described,)), at=T0)
    chunked.project.reload()
    with away_after(chunked, None) as written:
        chunked.run(END)
    assert written == list(range(10))


def test_a_run_with_a_later_end_begins_anew(chunked: Any) -> None:
    """It learns its values later, which decides between two values of one fact."""
    fail_after(chunked, 7)
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END + HOUR)
    assert (report.state, report.went_on_from, written) == ("succeeded", None, list(range(10)))


@pytest.mark.parametrize("known", [END - HOUR / 2, END + HOUR])
def test_files_of_which_all_was_known_later_than_the_chunks_that_are_done_change_nothing(
    chunked: Any, known: datetime
) -> None:
    """An old event that became known late is found by when that was."""
    fail_after(chunked, 7)
    chunked.happened(("K3", T0 + HOUR, known, 3.5, 3), file="late")
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END)
    assert (report.state, written[:2]) == ("succeeded", [7, 8])
    assert report.rows_read == 30 + (known <= END)
    found = state(chunked)
    assert found == clean_state(chunked, END)


def test_what_changes_in_the_source_while_a_try_is_at_work_is_seen_by_the_next(chunked: Any) -> None:
    """The chunks before the change were of the earlier files."""
    with away_after(chunked, 7) as written:
        write = chunked.project.online.write

        def meanwhile(*arguments: Any, **named: Any) -> Any:
            if len(written) == 4:
                chunked.happened(("K3", T0 + HOUR, T0 + HOUR, 3.5, 3), file="more")
            return write(*arguments, **named)

        chunked.project.online.write = meanwhile
        chunked.run(END)
    (report,) = chunked.run(END)
    assert (report.state, report.went_on_from, report.rows_read) == ("succeeded", None, 31)
    assert state(chunked)["K3"] == (3.5, 3)


def test_another_run_that_succeeded_meanwhile_leaves_only_what_came_after_it(chunked: Any) -> None:
    fail_after(chunked, 7)
    (done,) = backfill(chunked.project, "weather", start=T0 - HOUR, end=T0 + 8.5 * HOUR)
    assert (done.state, done.cutoff) == ("succeeded", T0 + 8.5 * HOUR)
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END)
    assert (report.start, written) == (T0 + 8.5 * HOUR, [9])
    found = state(chunked)
    assert found == clean_state(chunked, END)


def test_a_try_that_began_after_another_cut_off_is_not_gone_on_from(chunked: Any) -> None:
    """As when the run that had made it was one of a clock that was ahead, and does not count any longer."""
    fail_after(chunked, 7)
    text = json.loads(note(chunked))
    text["progress"] = json.dumps({**json.loads(text["progress"]), "loaded": (T0 + HOUR).isoformat()})
    chunked.project.online.resp.call("SET", "tm:{flights}:run:weather", json.dumps(text), "EX", 60)
    with away_after(chunked, None) as written:
        chunked.run(END)
    assert written == list(range(10))


def test_a_redis_that_came_back_with_less_is_loaded_from_where_it_is(chunked: Any) -> None:
    """As from a snapshot: it has the note of an earlier chunk, and no more than the values up to there."""
    resp = chunked.project.online.resp
    fail_after(chunked, 4)
    kept = {key: (resp.call("DUMP", key), resp.call("PTTL", key)) for key in resp.call("KEYS", "*")}
    fail_after(chunked, 3)
    resp.call("FLUSHALL")
    for key, (image, left) in kept.items():
        resp.call("RESTORE", key, max(0, left), image)
    with away_after(chunked, None) as written:
        (report,) = chunked.run(END)
    assert (report.state, written, report.rows_read) == ("succeeded", [4, 5, 6, 7, 8, 9], 30)
    found = state(chunked)
    assert found == clean_state(chunked, END)


def test_a_worker_that_died_is_followed_only_where_redis_has_what_it_wrote(chunked: Any) -> None:
    for lost in (False, True):
        with pytest.raises(KeyboardInterrupt), away_after(chunked, 7, KeyboardInterrupt):
            chunked.run(END)
        if lost:
            chunked.project.online.resp.call("FLUSHALL")
        chunked.clock.set(chunked.clock.now() + HOUR)
        with away_after(chunked, None) as written:
            (report,) = chunked.project.materializer.materialize(until=END, at=chunked.clock.now())
        assert (report.state, written) == ("succeeded", list(range(0 if lost else 7, 10)))
        found = state(chunked)
        assert found == clean_state(chunked, END)
        chunked.project.ledger.forget("weather", at=chunked.clock.now())


def test_the_note_is_gone_when_the_run_is_done_and_expires_when_it_never_is(chunked: Any) -> None:
    fail_after(chunked, 7)
    assert 80_000 < chunked.project.online.resp.call("TTL", "tm:{flights}:run:weather") <= 86_400
    chunked.run(END)
    assert note(chunked) is None


def test_what_became_of_each_try_is_explained(chunked: Any) -> None:
    def explained(run: int) -> str:
        folder = ["--project", str(chunked.root)]
        shown = CliRunner().invoke(app, ["runs", "--explain", str(run), *folder]).stdout
        return " ".join(shown.replace("│", " ").split())

    fail_after(chunked, 7)
    chunked.run(END)
    (done, failed) = chunked.project.ledger.runs()
    assert "all up to 2013-10-01 06:59:59 UTC is in the store, from where the next try" in explained(failed.id)
    told = explained(done.id)
    assert "try 2" in told
    assert "went on from 2013-10-01 06:59:59 UTC" in told
    assert "30 read, 30 written" in told


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_between_tries_the_store_ends_as_after_one_clean_run(chunked: Any, seed: int) -> None:
    chance = random.Random(seed)
    rows = hours(range(10))

    def arrive(low: float, high: float) -> None:
        """A file of rows that became known between these hours, a few of them of events long before."""
        found = []
        for _ in range(chance.randint(1, 3)):
            known = chance.uniform(low, high)
            event = known * chance.choice((1, 1, 0.5))
            found.append(
                (f"K{chance.randrange(PLACES + 2)}", T0 + event * HOUR, T0 + known * HOUR, event, int(1_000 * event))
            )
        rows.extend(found)
        chunked.happened(*found, file=f"f{len(rows):04}")

    happenings: list[Callable[[], Any]] = [
        lambda: None,
        lambda: None,
        lambda: arrive(0, 10),
        lambda: arrive(9, 14),
        lambda: chunked.project.online.resp.call("FLUSHALL"),
        lambda: chunked.happened(*hours(range(10))),
    ]
    for _ in range(chance.randint(3, 6)):
        with away_after(chunked, chance.randrange(8)):
            (report,) = chunked.run(END)
        if report.state == "succeeded":
            chunked.project.ledger.forget("weather", at=END)
        chance.choice(happenings)()
    (report,) = chunked.run(END)
    assert report.state == "succeeded"
    assert report.rows_read == sum(max(event, known) <= END for _, event, known, _, _ in rows)
    found = state(chunked)
    assert found == clean_state(chunked, END)
