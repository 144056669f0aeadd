"""Every command in the README and the quickstart runs, as a new user would run it, on real flights.

Each page is one shell session in a copy of the checkout's visible parts; the environment is the one the tests run in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

CHECKOUT = Path(__file__).parents[2]
PARTS = ("Makefile", "pyproject.toml", "README.md", "requirements", "feature_repo", "platform", "training", "serving")


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """What a clone holds, with the environment of this test run as its `.venv` and a table of the user's own."""
    for part in PARTS:
        _copy(CHECKOUT / part, tmp_path / part)
    environment = Path(sys.prefix)
    (tmp_path / ".venv").symlink_to(environment)
    table = pl.DataFrame({"customer_id": [1, 2], "at": ["2024-01-01", "2024-01-02"], "spent": [10.5, 3.0]})
    for folder in (tmp_path, tmp_path / "feature_repo"):
        table.with_columns(pl.col("at").str.to_datetime()).write_parquet(folder / "my_table.parquet")
    yield tmp_path
    for state in tmp_path.rglob(".tidemill"):
        _run("tidemill down", state.parent, check=False)


@pytest.mark.slow
def test_every_command_of_the_quickstart_runs_in_order(checkout: Path) -> None:
    said = _run("\n".join(_commands(CHECKOUT / "docs" / "quickstart.md")), checkout)

    assert "PRESENT" in said
    assert "champion" in said
    assert "No feature of 'arrival_delay' knows the future" in said


@pytest.mark.slow
def test_every_command_of_the_readme_runs_in_order(checkout: Path) -> None:
    commands = [line for line in _commands(CHECKOUT / "README.md") if line != "make test"]

    said = _run("\n".join(["source .venv/bin/activate", *commands, "tidemill down -p feature_repo || true"]), checkout)

    assert "Served values recomputed from history" in said


def test_the_commands_for_working_on_tidemill_exist(checkout: Path) -> None:
    for target in ("setup", "demo", "test", "check", "bench"):
        _run(f"make --dry-run {target}", checkout)


def _commands(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def _run(script: str, folder: Path, *, check: bool = True) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environment["PATH"] = f"{Path(sys.prefix) / 'bin'}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-xeuo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{script}\n\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".tidemill", "data", "*.egg-info"))
    else:
        shutil.copy2(source, target)
