"""The page on scheduling: its cron line, its Airflow flow and its Kubernetes job call commands that there are."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from tidemill.cli import data, runs
from tidemill.schedule.cron import parse_cron

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "schedule-work.md").read_text()


def block(title: str) -> str:
    found = re.search(rf"^{title}:\n\n```\w*\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def commands() -> list[str]:
    """Every call of ours on the page, the examples' among them."""
    lines = [line.partition("#")[0] for line in re.findall(r"^tidemill .*$", PAGE, flags=re.MULTILINE)]
    quoted = re.findall(r"`(tidemill (?:materialize|schedule|runs|backfill|extract) [^`]*)`", PAGE)
    return [*lines, *(text for text in quoted if text.upper() != text)]


def parse(line: str) -> None:
    """Fail where a command or an option is not there; nothing is run."""
    app = typer.Typer()
    for module in (data, runs):
        module.register(app)
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", commands())
def test_every_command_on_the_page_is_one(line: str) -> None:
    parse(line)


def test_a_command_that_is_none_would_be_noticed() -> None:
    for line in ("tidemill materialize --dew", "tidemill schedule halt weather"):
        with pytest.raises(AssertionError):
            parse(line)


def test_the_cron_line_runs_what_is_due_every_minute() -> None:
    *when, rest = block("cron").split(maxsplit=5)
    assert len(parse_cron(" ".join(when)).minutes) == 24 * 60
    parse(_call_in(rest))


def test_the_airflow_flow_runs_what_is_due_and_leaves_catching_up_to_us() -> None:
    tree = ast.parse(block("Airflow"))
    given = {
        keyword.arg: ast.literal_eval(keyword.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg in {"bash_command", "catchup", "max_active_runs"}
    }
    assert (given["catchup"], given["max_active_runs"]) == (False, 1)
    parse(_call_in(given["bash_command"]))


def test_the_kubernetes_job_runs_what_is_due_one_at_a_time() -> None:
    job = yaml.safe_load(block("Kubernetes"))
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    parse_cron(job["spec"]["schedule"])
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    parse(shlex.join(container["command"]))


def _call_in(line: str) -> str:
    found = re.search(r"tidemill materialize --due", line)
    assert found is not None
    return found[0]
