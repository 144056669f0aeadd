"""The page on pushing does what it says: its files are written and its commands run, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE, PATIENT

from tidemill.online.embedded import EmbeddedRedis

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "push-events.md"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "--- end of block ---"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each console block of the page printed, in order."""
    folder = tmp_path_factory.mktemp("shop")
    yield _follow(folder)
    EmbeddedRedis(folder / "shop" / ".tidemill" / "redis").stop()


def _follow(folder: Path) -> list[str]:
    commands: list[str] = []
    for language, title, body in _BLOCK.findall(PAGE.read_text()):
        if title:
            (folder / title).parent.mkdir(exist_ok=True)
            (folder / title).write_text(body)
        elif language == "console":
            commands += [body, f"echo {_END}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment |= PATIENT | {"PATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return [part.strip() for part in done.stdout.split(_END)]


def test_an_event_that_is_sent_twice_counts_once(said: list[str]) -> None:
    assert "1 accepted, 0 seen before\n0 accepted, 1 seen before" in said[0]
    assert re.search(r"spent_1h +│ +20 ", said[0])


def test_the_consumer_takes_what_it_can_and_stops_when_nothing_is_left(said: list[str]) -> None:
    assert "100 events accepted, 0 seen before, 1 set aside." in said[1]
    assert re.search(r"spent_1h +│ +150 ", said[1])


def test_what_could_not_be_pushed_is_shown_with_its_reason(said: list[str]) -> None:
    assert said[2].startswith("this is no order - its body is not JSON")


def test_windows_come_back_from_history(said: list[str]) -> None:
    assert "1 events counted for 1 customers" in said[3]
    assert '"value": 20.0' in said[3]
