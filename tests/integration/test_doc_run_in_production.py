"""What the page on production says is kept comes back from the backup that it takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkout import stop_everything
from pages import HOW_TO, follow


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each console block of the page printed, in order."""
    folder = tmp_path_factory.mktemp("taxis")
    try:
        yield follow(HOW_TO / "run-in-production.md", folder)
    finally:
        stop_everything(folder)


def test_the_definitions_in_force_come_back_as_they_were(said: list[str]) -> None:
    assert "Version 1 of the definitions is in force" in said[0]
    assert "Nothing has changed. Version 1 of the definitions is in force" in said[1]


def test_the_store_is_filled_and_the_ledger_goes_on(said: list[str]) -> None:
    assert said[1].count("PRESENT") == 2
    assert re.search(r"│ +2 │ rides_history .* succeeded", said[1])
    assert re.search(r"│ +1 │ rides_history .* succeeded", said[1])
    assert "every view was loaded" in said[1]
