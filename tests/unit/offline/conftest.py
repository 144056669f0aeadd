"""Fixtures of the offline tests: a project's sources and catalog, made as a test needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the oracle and the workshop are imported by name

from workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Writes Parquet sources below a fresh folder and defines views over them."""
    return Workshop(tmp_path)


@pytest.fixture
def make_workshop(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workshop]:
    """A fresh workshop at every call, for property tests."""
    return lambda: Workshop(tmp_path_factory.mktemp("project"))
