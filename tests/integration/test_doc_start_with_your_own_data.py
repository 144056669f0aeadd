"""The page for a table of one's own does what it says, from the table to a prediction that is verified."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

sys.path.insert(0, str(Path(__file__).parent))

from checkout import stop_everything
from pages import HOW_TO, follow


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each console block of the page printed, in order."""
    folder = tmp_path_factory.mktemp("bikes")
    try:
        yield follow(HOW_TO / "start-with-your-own-data.md", folder, TIDEMILL_PORT=str(free_port()))
    finally:
        stop_everything(folder)


def test_init_says_what_it_took_for_what(said: list[str]) -> None:
    assert "Its key is 'Station (name)', its event time 'Measured', from 2024-01-01 05:00 to" in said[0]
    assert "has the features: Bikes [n] (Int64), Temp °C (Float64)." in said[0]


def test_features_of_any_name_are_read(said: list[str]) -> None:
    assert "Bikes [n]" in said[1]
    assert said[1].count("PRESENT") == 2


def test_the_model_of_the_page_is_honest_and_passes_its_gates(said: list[str]) -> None:
    assert "No feature of 'short_of_bikes' knows the future." in said[3]
    assert "It serves now: " in said[3]


def test_the_prediction_of_the_page_is_answered_and_verified(said: list[str]) -> None:
    assert "Short of bikes with a probability of 0." in said[5]
    assert "2 of 2 values are equal; 0 are unexplained." in said[5]
