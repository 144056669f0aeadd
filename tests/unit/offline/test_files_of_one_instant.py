"""A file that is written twice within a tick of its file system's clock is told by neither its time nor its size."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from workshop import Workshop, at

from tidemill.clock import SimulatedClock
from tidemill.definitions.types import ValueType
from tidemill.offline.datasets import describe_source


@pytest.fixture
def instant() -> int:
    """In nanoseconds since 1970; late enough that the clock has not ticked since, however slow the test is."""
    return time.time_ns() + 10**12


def test_a_source_is_read_again(workshop: Workshop, instant: int) -> None:
    workshop.view("v", workshop.source("s", path="s.parquet"), {"x": ValueType.INT64})
    digests = set()
    for number in range(5):
        written = Workshop(workshop.root)
        written.source("s", {"id": [1], "event": [at(number)], "x": [number]})
        os.utime(workshop.root / "s.parquet", ns=(instant, instant))
        files = workshop.store.source_files("s")
        assert files.files[0].metadata.row_group(0).column(2).statistics.min == number
        digests.add(describe_source(files)["digest"])
    assert len(digests) == 5


def test_a_clock_that_is_set_again_is_read_again(tmp_path: Path, instant: int) -> None:
    file = tmp_path / "clock.json"
    here, there = SimulatedClock(file), SimulatedClock(file)
    there.set(datetime(2024, 1, 1, tzinfo=UTC))
    os.utime(file, ns=(instant, instant))
    assert here.now() == datetime(2024, 1, 1, tzinfo=UTC)
    file.write_text(file.read_text().replace("2024", "2025"))  # a new file may have the number of one that is gone
    os.utime(file, ns=(instant, instant))
    assert here.now() == datetime(2025, 1, 1, tzinfo=UTC)
