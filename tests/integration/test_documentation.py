"""Every command of the quickstart runs, in order, on real flights. (Those of the README run in test_demo.py.)"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkout import CHECKOUT, commands_of, copy_checkout, run, stop_everything


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    yield copy_checkout(tmp_path)
    stop_everything(tmp_path)


@pytest.mark.slow
def test_every_command_of_the_quickstart_runs_in_order(checkout: Path) -> None:
    said = run("\n".join(commands_of(CHECKOUT / "docs" / "quickstart.md")), checkout)

    assert "PRESENT" in said
    assert "No feature of 'arrival_delay' knows the future" in said
    assert "0 are unexplained" in said
    assert "equal to the last bit" in said
    assert "champion, challenger" not in said


def test_the_commands_for_working_on_tidemill_exist(checkout: Path) -> None:
    for target in ("setup", "demo", "test", "check", "bench"):
        run(f"make --dry-run {target}", checkout)
