"""A ledger grows by a row a minute for years: what is asked of it takes as long as on its first day.

What is counted are the steps of SQLite's machine, which are the same on every computer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from tidemill.clock import to_micros
from tidemill.materialize.ledger import Claim, Ledger
from tidemill.metadata.database import Database
from tidemill.metadata.tables import RunRow

T0 = datetime(2013, 10, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SHORT, LONG = 100, 3_000


def ledger_of(database: Database, minutes: int) -> Ledger:
    """A run a minute of one view, of which every 25th failed."""
    rows = [
        {
            "project": "flights",
            "view": "weather",
            "interval_start": to_micros(T0 + number * MINUTE),
            "interval_end": to_micros(T0 + (number + 1) * MINUTE),
            "attempt": 1,
            "kind": "scheduled",
            "state": "succeeded" if number % 25 else "failed",
            "cutoff": to_micros(T0 + number * MINUTE) if number % 25 else None,
            "claimed_by": "somebody",
            "lease_until": 0,
            "started_at": to_micros(T0 + (number + 1) * MINUTE),
            "finished_at": to_micros(T0 + (number + 2) * MINUTE),
        }
        for number in range(minutes)
    ]
    with database.writing() as session:
        session.execute(insert(RunRow), rows)
    return Ledger(database, "flights")


def do_next(ledger: Ledger, now: datetime) -> None:
    claim = ledger.claim("weather", start=now, end=now + MINUTE, at=now + MINUTE, kind="scheduled")
    assert isinstance(claim, Claim)
    ledger.succeed(claim, cutoff=now, rows_read=1, rows_written=1, rows_skipped=0, at=now + MINUTE)


def last_minutes(now: datetime) -> tuple[int, int]:
    return to_micros(now - 9 * MINUTE), to_micros(now + 9 * MINUTE)


QUESTIONS: dict[str, Callable[[Ledger, datetime], object]] = {
    "the end of what is done": lambda ledger, now: ledger.last_end("weather", by=now),
    "the cut-off": lambda ledger, now: ledger.last_cutoff("weather", by=now),
    "the newest runs of a view": lambda ledger, _: ledger.runs("weather", limit=3),
    "the newest failures of a view": lambda ledger, _: ledger.runs("weather", limit=3, state="failed"),
    "the newest runs of all": lambda ledger, _: ledger.runs(limit=3),
    "the newest successes of all": lambda ledger, _: ledger.runs(limit=3, state="succeeded"),
    "what is at work": lambda ledger, now: ledger.unfinished("weather", at=now),
    "what was held in the last minutes": lambda ledger, now: ledger.cutoffs("weather", between=last_minutes(now)),
    "what was held in the first minutes": lambda ledger, _: ledger.cutoffs("weather", between=last_minutes(T0)),
    "an interval to do": do_next,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_takes_as_many_steps_however_long_the_ledger_is(tmp_path: Path, question: str) -> None:
    steps = []
    for minutes in (SHORT, LONG):
        database = Database(f"sqlite:///{tmp_path}/{minutes}.db")
        ledger, done = ledger_of(database, minutes), itertools.count()
        with database.engine.connect() as connection:  # the pool's only one, which every session has
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.set_progress_handler(lambda done=done: next(done) < 0, 1)
        QUESTIONS[question](ledger, T0 + minutes * MINUTE)
        steps.append(next(done))
        database.close()
    assert 10 < steps[1] < 2 * steps[0]


def test_the_newest_runs_come_newest_first_whatever_their_states(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/metadata.db")
    ledger = ledger_of(database, SHORT)
    assert ledger.claim("weather", start=T0 - MINUTE, end=T0, at=T0) is not None
    newest = ledger.runs("weather", limit=30)
    assert [run.id for run in newest] == list(range(SHORT + 1, SHORT - 29, -1))
    assert [run.id for run in newest if run.state != "succeeded"] == [SHORT + 1, 76]
    assert ledger.runs(limit=30) == newest
    database.close()
