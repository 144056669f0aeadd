"""The score counts what the project has recorded, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from tidemill.cli import score as command
from tidemill.definitions import Catalog
from tidemill.definitions.catalog import Gate, Trigger
from tidemill.metadata.reports import ReportRepository
from tidemill.monitor.parity import verify
from tidemill.monitor.score import RUBRIC, ProjectScore, score

Minutes = Callable[[float], datetime]
TRAINED_ON = pl.DataFrame({"temp": [1.0, 2.0], "gusts": [1, 2], "delay": [0.0, 1.0], "prediction": [0.2, 0.4]})


def line(found: ProjectScore, asks: str) -> tuple[float, str]:
    (test,) = [test for test in found.tests if asks in test.asks]
    return test.points, test.evidence


def test_the_rubric_has_seven_tests_in_each_of_four_sections() -> None:
    sections = [test.section for test in RUBRIC]
    assert {section: sections.count(section) for section in sections} == dict.fromkeys(sections, 7)
    assert len(RUBRIC) == 28


def test_a_project_that_did_nothing_has_no_evidence(airports: Any, minutes: Minutes) -> None:
    found = score(airports.project, at=minutes(1))
    assert found.score == 0
    assert found.level == 0
    assert line(found, "same values") == (0.0, "no evidence")
    assert found.sections["monitoring"] == 0
    assert line(found, "schema")[0] == 0.5


def test_checking_parity_once_counts_half_and_again_and_again_counts_whole(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(30), temp=None, gusts=None, delay=None)
    verify(airports.project)
    assert line(score(airports.project, at=minutes(40)), "same values")[0] == 0.5
    verify(airports.project)
    assert line(score(airports.project, at=minutes(41)), "same values") == (
        1.0, "3 served values recomputed, none unexplained",
    )  # fmt: skip
    airports.serve(minutes(31), temp=None, gusts=None, delay=7.0)
    verify(airports.project)
    assert line(score(airports.project, at=minutes(42)), "same values") == (
        0.0, "the newest check left 1 values unexplained",
    )  # fmt: skip


def test_predictions_that_are_no_probabilities_count_against_the_model(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(30), prediction=0.5, temp=None, gusts=None, delay=None)
    assert line(score(airports.project, at=minutes(40)), "numerically")[0] == 1.0
    airports.serve(minutes(31), prediction=float("nan"), temp=None, gusts=None, delay=None)
    assert line(score(airports.project, at=minutes(40)), "numerically") == (
        0.0, "1 of 2 predictions are no probability",
    )  # fmt: skip


def test_code_counts_as_tested_where_a_test_names_it(airports: Any, minutes: Minutes) -> None:
    tests = airports.project.root / "tests"
    tests.mkdir()
    (tests / "test_other.py").write_text("def test_nothing():\n    assert remake_estimators\n")
    assert line(score(airports.project, at=minutes(1)), "specification code")[0] == 0.0
    (tests / "test_model.py").write_text("from estimators import make\n")
    assert line(score(airports.project, at=minutes(1)), "specification code")[0] == 0.5


def test_the_level_rises_with_what_runs_by_itself(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    trigger = Trigger(kind="drift", settings=(("psi", 0.2),))
    model = replace(
        catalog.model("late"), retrain=(trigger,), gates=(Gate(kind="at_least", metric="roc_auc", value=0.6),)
    )
    airports = make_airports(replace(catalog, models=(model,)))
    project = airports.project
    airports.promote(TRAINED_ON, metrics={"roc_auc": 0.7})
    airports.serve(minutes(30), temp=None, gusts=None, delay=None)
    found = score(project, at=minutes(40))
    assert found.level == 0
    assert "materialization by the schedule" in found.level_evidence
    claim = project.ledger.claim("weather", start=None, end=minutes(60), at=minutes(60), kind="scheduled")
    project.ledger.succeed(claim, cutoff=minutes(60), rows_read=1, rows_written=1, rows_skipped=0, at=minutes(60))
    ReportRepository(project.database, project.name).add("retrain", "late", {"outcome": "not due"}, at=minutes(61))
    assert score(project, at=minutes(70)).level == 1
    (project.root / ".git").mkdir()
    (project.root / ".gitlab-ci.yml").write_text("test: {script: make test}\n")
    found = score(project, at=minutes(70))
    assert found.level == 2
    assert line(found, "too stale")[0] == 1.0


def test_the_command_prints_every_line_with_its_evidence(airports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    app = typer.Typer()
    command.register(app)
    result = CliRunner().invoke(app, ["--project", str(airports.project.root)])
    assert result.exit_code == 0
    assert "ML Test Score 0" in result.stdout
    assert all(test.asks in result.stdout for test in RUBRIC)
