"""The page on pushing does what it says: its files are written and its commands run, in a folder of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.online.embedded import EmbeddedRedis

sys.path.insert(0, str(Path(__file__).parent))

from pages import HOW_TO, follow


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each console block of the page printed, in order."""
    folder = tmp_path_factory.mktemp("shop")
    yield follow(HOW_TO / "push-events.md", folder)
    EmbeddedRedis(folder / "shop" / ".tidemill" / "redis").stop()


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
