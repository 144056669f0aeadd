"""The project of the worker's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests share parts by name

from worker_parts import HOURLY, Airports, catalog_with


@pytest.fixture
def airports(tmp_path: Path, metadata_url: str) -> Iterator[Airports]:
    found = Airports(tmp_path, metadata_url)
    found.apply(catalog_with(HOURLY))
    yield found
    found.project.close()
