"""`materialize`, `backfill`, `runs` and `extract` at the command line: what they say, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tidemill.cli import data, runs
from tidemill.definitions.catalog import Schedule
from tidemill.errors import InputError, NotDefinedError
from tidemill.schedule.switches import Switches

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def run(world: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command on the project, which lives on the wall clock. Our own errors are raised."""
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setenv("TIDEMILL_REDIS_URL", world.project.settings.redis_url.get_secret_value())
    world.happened(("JFK", T0, T0, 1.0, 1), ("LGA", T0, T0, 2.0, 2), (None, T0, T0, 3.0, 3))
    app = typer.Typer()
    for module in (data, runs):
        module.register(app)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--project", str(world.root)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_a_dry_run_says_what_would_be_written_and_leaves_no_trace(world: Any, run: Callable[..., Result]) -> None:
    result = run("materialize", "--dry-run")
    assert "Would write" in result.stdout
    (report,) = json.loads(run("materialize", "--dry-run", "--json").stdout)
    assert (report["state"], report["rows_read"], report["rows_written"]) == ("dry-run", 3, 2)
    assert world.served("JFK") == [None]
    assert json.loads(run("runs", "--json").stdout) == []


def test_null_keys_are_counted_skipped_and_reported(run: Callable[..., Result]) -> None:
    result = run("materialize")
    assert result.exit_code == 0
    assert "null key" in result.stdout
    (kept,) = json.loads(run("runs", "--json").stdout)
    assert (kept["rows_read"], kept["rows_written"], kept["rows_skipped"]) == (3, 2, 1)


def test_a_run_that_failed_fails_the_command(world: Any, run: Callable[..., Result]) -> None:
    """Or cron, Airflow and Kubernetes would take it for done."""
    (world.root / "data" / "weather" / "a.parquet").unlink()
    result = run("materialize")
    assert result.exit_code == 1
    assert "Source 'weather' is empty" in result.output
    (world.root / "data" / "weather").rmdir()
    assert "Source 'weather' is not there" in run("materialize").output
    world.happened(("JFK", T0, T0, 1.0, 1))
    assert run("materialize").exit_code == 0
    assert world.served("JFK") == [1.0]


def test_why_a_run_failed_is_told_once(world: Any) -> None:
    world.happened(("JFK", T0, T0, 1.0, 1))
    program = "from tidemill.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "materialize", "--project", str(world.root)],
        env=os.environ | {"TIDEMILL_REDIS_URL": "unix:///nowhere", "COLUMNS": "220"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("Redis does not answer") == 1


def test_a_source_without_the_columns_says_which(world: Any, run: Callable[..., Result]) -> None:
    import polars as pl

    file = world.root / "data" / "weather" / "a.parquet"
    pl.read_parquet(file).drop("wind").write_parquet(file)
    result = run("materialize")
    assert result.exit_code == 1
    assert "'wind'" in result.output
    file.unlink()
    pl.DataFrame({"origin": ["JFK"], "temp": [1.0], "wind": [1]}).write_parquet(file)
    assert "'at'" in run("materialize").output


def test_intervals_and_names_that_cannot_be_are_told_apart(run: Callable[..., Result]) -> None:
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        run("materialize", "--view", "wether")
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        run("backfill", "wether", "--start", "2013-10-01")
    with pytest.raises(InputError, match="in the future"):
        run("materialize", "--until", "2999-01-01")
    with pytest.raises(InputError, match="in the future"):
        run("backfill", "weather", "--start", "2013-10-01", "--end", "2999-01-01")
    with pytest.raises(InputError, match="ends before it begins"):
        run("backfill", "weather", "--start", "2013-10-02", "--end", "2013-10-01")
    with pytest.raises(InputError, match="begins in the future"):
        run("backfill", "weather", "--start", "2999-01-01")
    with pytest.raises(InputError, match="in the future"):
        run("extract", "--start", "2013-10-01", "--end", "2999-01-01")
    assert "is not an instant" in run("materialize", "--until", "soon").output


def test_every_fact_of_one_run_is_explained(world: Any, run: Callable[..., Result]) -> None:
    run("materialize")
    claim = world.project.ledger.claim("weather", start=T0, end=T0 + HOUR, at=T0, by="elsewhere:1:1")
    assert claim is not None
    (left, done) = json.loads(run("runs", "--json").stdout)
    explained = run("runs", "--explain", str(done["id"])).stdout
    for fact in ("after the beginning", done["claimed_by"], "succeeded", "3 read, 2 written, 1 skipped"):
        assert fact in explained
    assert "left by its worker" in run("runs", "--explain", str(left["id"])).stdout
    with pytest.raises(InputError, match="No run has the id 99"):
        run("runs", "--explain", "99")


def test_runs_asked_for_wrongly_are_not_an_empty_list(run: Callable[..., Result]) -> None:
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        run("runs", "wether")
    with pytest.raises(InputError, match="claimed, succeeded, failed"):
        run("runs", "--state", "done")
    assert "No such run" in run("runs", "weather").stdout
    for option in ("--explain", "--limit"):
        assert run("runs", option, "9" * 20).exit_code == 2


def test_a_backfill_that_was_paused_goes_on_with_the_same_command(world: Any, run: Callable[..., Result]) -> None:
    """Without --end it ends where it was to end when it began, not at another now."""
    run("schedule", "pause", "backfill:weather", "--reason", "the store is busy")
    assert "schedule resume backfill:weather" in run("backfill", "weather", "--start", "2013-09-30").stdout
    assert "backfill:weather" in Switches(world.project.database, "flights").paused()
    (left,) = json.loads(run("runs", "--json").stdout)
    explained = run("runs", "--explain", str(left["id"])).stdout
    assert "`tidemill backfill weather --start 2013-09-30T00:00:00+00:00` goes on" in explained
    run("schedule", "resume", "backfill:weather")
    (report,) = json.loads(run("backfill", "weather", "--start", "2013-09-30", "--json").stdout)
    assert (report["state"], report["rows_read"]) == ("succeeded", 3)
    assert len(world.project.ledger.runs()) == 1
    assert world.served("JFK", "LGA") == [1.0, 2.0]


def test_a_store_that_has_lost_its_data_is_loaded_again(world: Any, run: Callable[..., Result]) -> None:
    run("materialize")
    world.project.online.resp.call("FLUSHALL")
    run("materialize")
    assert world.served("JFK", "LGA") == [None, None], "a run looks for what is new, not for what is lost"
    assert run("materialize", "--again").exit_code == 0
    assert world.served("JFK", "LGA") == [1.0, 2.0]
    with pytest.raises(InputError, match="neither --due nor --dry-run"):
        run("materialize", "--again", "--due")


def test_a_backfill_shows_how_far_it_is_and_how_long_it_will_take() -> None:
    from tidemill.cli.data import _how_far
    from tidemill.materialize.backfill import Estimate

    assert _how_far(Estimate(done=3, total=48, rows_written=9, seconds_left=75.4)) == (
        "3 of 48 pieces, about 0:01:15 left"
    )


def test_what_is_due_and_what_rests_can_be_asked_without_doing_it(world: Any, run: Callable[..., Result]) -> None:
    catalog = world.project.catalog
    scheduled = replace(catalog.view("weather"), schedule=Schedule(cron="0 0 * * *"))
    world.project.catalogs.add(replace(catalog, views=(scheduled,)), at=T0)

    run("schedule", "pause", "weather", "--reason", "the station is being moved")
    assert "the station is being moved" in run("schedule", "show").stdout
    run("schedule", "pause", "*")
    assert "rests with everything else" in run("schedule", "resume", "weather").stdout
    assert "at its next tick" in run("schedule", "resume", "*").stdout

    (told,) = json.loads(run("materialize", "--due", "--dry-run", "--json").stdout)
    assert (told["view"], told["state"], told["rows_written"]) == ("weather", "dry-run", 2)
    assert world.served("JFK") == [None]
    assert json.loads(run("runs", "--json").stdout) == []

    Switches(world.project.database, world.project.name).pause("weather", at=T0)
    assert "Nothing is due" in run("materialize", "--due", "--dry-run").stdout
    Switches(world.project.database, world.project.name).resume("weather", at=T0)
    (done,) = json.loads(run("materialize", "--due", "--json").stdout)
    assert (done["view"], done["rows_written"], done["end"]) == ("weather", 2, told["end"])
    assert "Nothing is due" in run("materialize", "--due", "--dry-run").stdout


@pytest.mark.parametrize("more", [("--view", "weather"), ("--until", "2013-10-01")])
def test_due_goes_by_the_schedule_and_nothing_else(run: Callable[..., Result], more: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="--due goes by the schedule"):
        run("materialize", "--due", *more)


def test_loading_anew_what_cannot_be_loaded_forgets_nothing(world: Any, run: Callable[..., Result]) -> None:
    run("materialize")
    loaded = world.project.ledger.last_cutoff("weather")
    with pytest.raises(InputError, match="in the future"):
        run("materialize", "--again", "--until", "2900-01-01")
    assert world.project.ledger.last_cutoff("weather") == loaded


def test_progress_is_told_view_by_view_and_reaches_the_whole(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.materialize import run as runs_module
    from tidemill.materialize.run import Materializer

    monkeypatch.setattr(runs_module, "_ROWS_TOLD", 2)
    world.happened(*((f"A{number}", T0, T0, 1.0, 1) for number in range(5)))
    told: list[tuple[str, float]] = []
    materializer = Materializer(world.project, tell=lambda view, share: told.append((view, round(share, 2))))
    (report,) = materializer.materialize(until=T0, at=T0, views=["weather"])
    assert (report.state, report.rows_written) == ("succeeded", 5)
    assert told == [("weather", 0.4), ("weather", 0.8), ("weather", 1.0)]


def test_what_was_given_up_is_told_whenever_nothing_is_due(world: Any, run: Callable[..., Result]) -> None:
    catalog = world.project.catalog
    scheduled = replace(catalog.view("weather"), schedule=Schedule(cron="0 0 * * *", attempts=1))
    world.project.catalogs.add(replace(catalog, views=(scheduled,)), at=T0)
    file = world.root / "data" / "weather" / "a.parquet"
    away = file.rename(world.root / "away.parquet")
    assert run("materialize", "--due").exit_code == 1
    for _ in range(2):
        told = run("materialize", "--due")
        assert told.exit_code == 0
        assert "tidemill schedule retry weather" in told.output
    away.rename(file)
    run("schedule", "retry", "weather")
    assert "given up" not in run("materialize", "--due").output
    assert world.served("JFK") == [1.0]


def test_what_waits_for_an_extraction_says_so_and_a_source_that_is_not_there_hides_nothing_else(
    world: Any, run: Callable[..., Result]
) -> None:
    (world.root / "extract.py").write_text(
        "from tidemill.extract import extracts\n\n"
        "@extracts(source='weather')\n"
        "def weather(start, end):\n"
        "    return 1 / 0\n"
    )
    catalog, hourly = world.project.catalog, Schedule(cron="0 * * * *")
    (source,) = catalog.sources
    sources = (replace(source, schedule=hourly, path="data/nowhere"), replace(source, name="other"))
    views = tuple(
        replace(catalog.view("weather"), name=name, schedule=hourly, source=source)
        for name, source in (("weather", "weather"), ("other", "other"))
    )
    world.project.catalogs.add(replace(catalog, sources=sources, views=views), at=T0)
    shown = {row["task"]: row for row in json.loads(run("schedule", "show", "--json").stdout)}
    assert (shown["weather"]["state"], shown["weather"]["why"]) == ("waits", "for extract:weather")
    assert shown["other"]["state"] == shown["extract:weather"]["state"] == "on"

    found = run("materialize", "--due", "--dry-run", "--json")
    told = {report["view"]: report for report in json.loads(found.stdout)}
    assert found.exit_code == 1
    assert told["extract:weather"]["state"] == "dry-run"
    assert (told["weather"]["state"], told["other"]["rows_written"]) == ("failed", 2)
    assert "is not there" in told["weather"]["error"]
