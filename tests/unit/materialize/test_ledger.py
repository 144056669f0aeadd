from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from waiting import PATIENCE, wait_for_end_of

from tidemill.clock import to_micros
from tidemill.errors import ConflictError
from tidemill.materialize.ledger import Claim, Ledger
from tidemill.metadata.database import Database

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(metadata_url: str):
    database = Database(metadata_url)
    yield Ledger(database, "flights")
    database.close()


def finish(ledger: Ledger, view: str, start: datetime | None, end: datetime, at: datetime) -> None:
    claim = ledger.claim(view, start=start, end=end, at=at)
    assert claim is not None
    ledger.succeed(claim, cutoff=end, rows_read=1, rows_written=1, rows_skipped=0, at=at)


def test_an_interval_is_claimed_once(ledger: Ledger):
    assert ledger.claim("weather", start=None, end=T0, at=T0, by="a") is not None
    assert ledger.claim("weather", start=None, end=T0, at=T0, by="b") is None


def test_a_finished_interval_is_never_done_again(ledger: Ledger):
    finish(ledger, "weather", None, T0, T0)
    assert ledger.claim("weather", start=None, end=T0, at=T0 + 9 * HOUR) is None


def test_a_failed_interval_is_claimed_again_as_the_next_attempt(ledger: Ledger):
    first = ledger.claim("weather", start=None, end=T0, at=T0)
    assert first is not None
    ledger.fail(first, error="disk full", at=T0)
    second = ledger.claim("weather", start=None, end=T0, at=T0)
    assert second is not None
    assert [(run.attempt, run.state) for run in ledger.runs("weather")] == [(2, "claimed"), (1, "failed")]


@pytest.mark.parametrize(
    ("first", "second", "progress"),
    [
        ({"kind": "manual"}, {"kind": "scheduled"}, "half"),
        ({"kind": "backfill"}, {"kind": "backfill"}, "half"),
        ({"kind": "backfill"}, {"kind": "manual"}, None),
        ({"kind": "manual"}, {"kind": "backfill"}, None),
        ({"catalog_digest": "old"}, {"catalog_digest": "new"}, None),
        ({}, {"start": T0 - HOUR}, None),
        ({}, {"end": T0 + HOUR}, None),
    ],
)
def test_the_next_attempt_is_given_the_progress_of_the_last_if_that_did_the_same_work(
    ledger: Ledger, first: dict[str, Any], second: dict[str, Any], progress: str | None
):
    usual = {"start": None, "end": T0, "at": T0 + HOUR, "catalog_digest": "old"}
    claim = ledger.claim("weather", **{**usual, **first})
    assert claim is not None
    ledger.save_progress(claim, "half", at=T0)
    ledger.fail(claim, error="disk full", at=T0)
    again = ledger.claim("weather", **{**usual, **second})
    assert again is not None
    assert (again.progress, ledger.run(again.id).progress) == (progress, progress)


def test_progress_of_work_that_was_forgotten_is_given_to_nobody(ledger: Ledger):
    claim = ledger.claim("weather", start=None, end=T0, at=T0)
    assert claim is not None
    ledger.save_progress(claim, "half", at=T0)
    ledger.fail(claim, error="disk full", at=T0)
    ledger.forget("weather", at=T0)
    again = ledger.claim("weather", start=None, end=T0, at=T0)
    assert again is not None
    assert again.progress is None


def test_a_silent_holder_loses_its_claim_after_the_lease_and_its_progress_is_kept(ledger: Ledger):
    claim = ledger.claim("weather", start=None, end=T0, at=T0, by="a", lease=HOUR)
    assert claim is not None
    ledger.save_progress(claim, "half", at=T0)
    assert ledger.claim("weather", start=None, end=T0, at=T0 + HOUR / 2, by="b") is None
    taken = ledger.claim("weather", start=None, end=T0, at=T0 + HOUR, by="b")
    assert taken is not None
    assert taken.progress == "half"
    with pytest.raises(ConflictError, match="taken over"):
        ledger.succeed(claim, cutoff=T0, rows_read=0, rows_written=0, rows_skipped=0, at=T0 + HOUR)


def test_a_holder_that_died_on_this_machine_loses_its_claim_at_once(ledger: Ledger):
    from tidemill.materialize.ledger import this_worker

    gone = this_worker().rsplit(":", 2)[0] + ":4194300:1.00"
    assert ledger.claim("weather", start=None, end=T0, at=T0, by=gone) is not None
    assert [run.view for run in ledger.unfinished("weather", at=T0)] == ["weather"]
    assert ledger.claim("weather", start=None, end=T0, at=T0) is not None


def test_a_holder_on_another_machine_of_the_same_name_keeps_its_claim(ledger: Ledger):
    from tidemill.materialize.ledger import this_worker

    host, _boot, namespace = this_worker().rsplit(":", 2)[0].split("/")
    elsewhere = f"{host}/0123456789ab/{namespace}:4194300:1.00"
    assert ledger.claim("weather", start=None, end=T0, at=T0, by=elsewhere) is not None
    assert ledger.claim("weather", start=None, end=T0, at=T0) is None


def test_takeovers_are_counted_from_where_the_work_last_came_further(ledger: Ledger):
    def taken_over(hours: int) -> Claim:
        claim = ledger.claim("weather", start=None, end=T0, at=T0 + hours * HOUR, by=f"worker {hours}")
        assert claim is not None
        return claim

    taken_over(0)
    taken_over(1)
    third = taken_over(2)
    assert ledger.run(third.id).takeovers == 2
    ledger.save_progress(third, "as before", at=T0 + 2 * HOUR, further=False)
    assert ledger.run(third.id).takeovers == 2
    ledger.save_progress(third, "half", at=T0 + 2 * HOUR)
    assert ledger.run(third.id).takeovers == 0
    assert ledger.run(taken_over(3).id).takeovers == 1


def test_an_unfinished_run_is_given_up_unless_somebody_has_taken_it_over(ledger: Ledger):
    ledger.claim("weather", start=None, end=T0, at=T0, by="first")
    (left,) = ledger.unfinished("weather", at=T0 + HOUR)
    claim = ledger.claim("weather", start=None, end=T0, at=T0 + HOUR, by="second")
    assert claim is not None
    assert not ledger.give_up(left, error="too much", at=T0 + HOUR)
    (left,) = ledger.unfinished("weather", at=T0 + 2 * HOUR)
    assert ledger.give_up(left, error="too much", at=T0 + 2 * HOUR)
    assert [(run.state, run.error) for run in ledger.runs("weather")] == [("failed", "too much")]
    with pytest.raises(ConflictError):
        ledger.renew(claim, at=T0 + 2 * HOUR)


def test_the_cut_off_never_falls_and_is_ordered_by_finishing(ledger: Ledger):
    finish(ledger, "weather", None, T0 + 2 * HOUR, T0 + 2 * HOUR)
    finish(ledger, "weather", T0 - 9 * HOUR, T0, T0 + 3 * HOUR)
    finish(ledger, "weather", T0 + 2 * HOUR, T0 + 4 * HOUR, T0 + 4 * HOUR)
    finished, cutoffs = ledger.cutoffs("weather")
    assert finished.tolist() == [to_micros(T0 + n * HOUR) for n in (2, 3, 4)]
    assert cutoffs.tolist() == [to_micros(T0 + n * HOUR) for n in (2, 2, 4)]
    assert ledger.last_cutoff("weather") == T0 + 4 * HOUR


@pytest.mark.parametrize("seed", range(3))
def test_what_was_held_between_two_instants_is_told_by_the_runs_that_decide_it(ledger: Ledger, seed: int):
    """Backfills of the past, runs that end in another order than they began, and one of a clock that was far ahead."""
    chance = random.Random(seed)
    for number in range(40):
        ended = T0 + chance.randrange(200) * HOUR / 10
        seen = ended - chance.choice([0, 0, 1, 30]) * HOUR / 10
        finish(ledger, "weather", T0 - number * HOUR, seen + (99 * HOUR if number == 7 else 0 * HOUR), ended)
    finished, cutoffs = ledger.cutoffs("weather")
    assert len(finished) == 39, "no run has seen what comes days after its end"
    for _ in range(20):
        first, last = sorted(to_micros(T0 + chance.randrange(-20, 250) * HOUR / 10) for _ in range(2))
        fewer, held = ledger.cutoffs("weather", between=(first, last))
        assert len(fewer) <= 1 + ((finished > first) & (finished <= last)).sum()
        for at in (first, (first + last) // 2, last):
            assert held[fewer <= at][-1:].tolist() == cutoffs[finished <= at][-1:].tolist()


def test_a_view_that_never_ran_has_no_cut_off(ledger: Ledger):
    finished, cutoffs = ledger.cutoffs("weather")
    assert finished.dtype == cutoffs.dtype == np.int64
    assert len(finished) == len(cutoffs) == 0
    assert ledger.last_cutoff("weather") is None


def test_of_many_workers_racing_for_one_interval_exactly_one_gets_it(ledger: Ledger):
    ledger.runs()  # the tables exist before the race
    won: list[datetime] = []

    def race(worker: int) -> None:
        ends = [T0 + tick * HOUR for tick in range(20)]
        won.extend(end for end in ends if ledger.claim("weather", start=None, end=end, at=T0, by=f"w{worker}"))

    threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_for_end_of(*threads)
    assert sorted(won) == [T0 + tick * HOUR for tick in range(20)]


def test_of_workers_that_see_different_ticks_exactly_one_gets_what_follows_the_last_run(ledger: Ledger):
    """A worker whose clock is a moment ahead asks for a longer interval; both would do the part they share."""
    ledger.runs()
    together = threading.Barrier(4, timeout=PATIENCE)
    won: dict[int, list[int]] = {}

    def race(worker: int) -> None:
        for number in range(25):
            start = T0 + number * 10 * HOUR
            together.wait()
            end = start + (1 + worker) * HOUR
            if ledger.claim("weather", start=start, end=end, at=T0 + 999 * HOUR, by=f"w{worker}", kind="scheduled"):
                won.setdefault(number, []).append(worker)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_for_end_of(*threads)
    assert sorted(won) == list(range(25))
    assert {number: len(winners) for number, winners in won.items()} == dict.fromkeys(range(25), 1)


def test_projects_do_not_see_each_other_s_runs(metadata_url: str):
    database = Database(metadata_url)
    finish(Ledger(database, "prod"), "weather", None, T0, T0)
    assert Ledger(database, "my_prod").last_cutoff("weather") is None
    database.close()
