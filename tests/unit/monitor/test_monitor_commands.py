"""The commands on parity, monitoring, runs and schedule: tables for people, JSON for machines, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tidemill.cli import monitor, runs, verify
from tidemill.clock import SimulatedClock
from tidemill.errors import NotDefinedError

Minutes = Callable[[float], datetime]


@pytest.fixture
def run(airports: Any, minutes: Minutes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command on the project, whose clock stands ten hours after its start."""
    monkeypatch.setenv("COLUMNS", "200")
    SimulatedClock(airports.project.state / "clock.json").set(minutes(600))
    app = typer.Typer()
    for module in (verify, monitor, runs):
        module.register(app)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--project", str(airports.project.root)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_verify_shows_parity_by_feature(airports: Any, minutes: Minutes, run: Callable[..., Result]) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=4.0)
    result = run("verify")
    assert result.exit_code == 0
    assert "3 of 3 values are equal; 0 are unexplained" in result.stdout
    document = json.loads(run("verify", "late", "--json").stdout)
    assert (document["ok"], document["compared"]) == (True, 3)


def test_verify_fails_and_shows_both_values_where_something_is_unexplained(
    airports: Any, minutes: Minutes, run: Callable[..., Result]
) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=5.0)
    result = run("verify")
    assert result.exit_code == 1
    assert "was served as 5.0, recomputed as 4.0" in result.stdout


def test_verify_says_when_there_is_nothing(run: Callable[..., Result]) -> None:
    assert "nothing to verify" in run("verify").stdout


def test_monitor_shows_findings_and_fails_on_critical_ones(run: Callable[..., Result]) -> None:
    result = run("monitor", "late")
    assert result.exit_code == 1
    assert "The run due at 2013-10-01 10:00 UTC has not finished" in result.stdout
    (document,) = json.loads(run("monitor", "--json").stdout)
    assert document["findings"][0]["severity"] == "critical"


def test_monitor_is_content_where_runs_keep_up(airports: Any, minutes: Minutes, run: Callable[..., Result]) -> None:
    airports.ran("weather", tick=minutes(600), started=minutes(600), finished=minutes(600))
    result = run("monitor", "late", "--window", "2d")
    assert result.exit_code == 0
    assert "There is no champion" in result.stdout


def test_runs_lists_the_ledger_with_its_errors(airports: Any, minutes: Minutes, run: Callable[..., Result]) -> None:
    airports.ran("weather", tick=minutes(0), started=minutes(0), finished=minutes(1))
    claim = airports.project.ledger.claim("weather", start=minutes(0), end=minutes(60), at=minutes(60))
    airports.project.ledger.fail(claim, error="the disk is full", at=minutes(61))
    result = run("runs", "weather")
    assert "the disk is full" in result.output
    assert "2013-10-01 00:00 to 01:00" in result.output
    assert "60.0 s" in result.output
    assert [item["state"] for item in json.loads(run("runs", "--json").stdout)] == ["failed", "succeeded"]
    assert len(json.loads(run("runs", "--state", "failed", "--json").stdout)) == 1


def test_a_task_is_paused_shown_so_and_resumed(run: Callable[..., Result]) -> None:
    assert run("schedule", "pause", "weather", "--reason", "moving").exit_code == 0
    (row,) = json.loads(run("schedule", "show", "--json").stdout)
    assert (row["task"], row["state"], row["next"]) == ("weather", "paused", "2013-10-01T11:00:00+00:00")
    run("schedule", "resume", "weather")
    assert "on" in run("schedule", "show").stdout
    assert run("schedule", "retry", "weather").exit_code == 0


def test_an_unknown_task_is_named_with_what_was_meant(run: Callable[..., Result]) -> None:
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        run("schedule", "pause", "wether")
