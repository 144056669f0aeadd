"""An extraction that dies, by the system's hand or for want of room, and is started again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.definitions.catalog import Catalog, Source
from tidemill.extract import Quarantine, extract
from tidemill.extract.validation import REASON
from tidemill.project import Project, open_project

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 60
END = START + timedelta(days=DAYS)

EXTRACT = """
from datetime import datetime
import polars as pl
from tidemill.extract import Column, Contract, extracts

CONTRACT = Contract(columns={"n": Column(int, min=0), "at": datetime}, rows=(20_000, 20_000))

@extracts(source="events", contract=CONTRACT)
def events(start, end):
    numbers = pl.int_range(20_000, eager=True) - 10
    at = pl.Series("at", [start] * 20_000).dt.cast_time_unit("us")
    return pl.DataFrame({"n": numbers, "text": numbers.cast(pl.String) + start.isoformat(), "at": at})
"""

RUN = """
import sys
from datetime import datetime
from tidemill.extract import extract
from tidemill.project import open_project
extract(open_project(sys.argv[1]), start=datetime.fromisoformat(sys.argv[2]), end=datetime.fromisoformat(sys.argv[3]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "feature_store.yaml").write_text("project: killed\n")
    (tmp_path / "extract.py").write_text(EXTRACT)
    opened = open_project(tmp_path)
    source = Source(name="events", path="data/events", timestamp_field="at")
    opened.catalogs.add(Catalog(project="killed", sources=(source,)), at=START)
    yield opened
    opened.close()


def started(project: Project, *before: str) -> subprocess.Popen[bytes]:
    command = [*before, sys.executable, "-c", RUN, str(project.root), START.isoformat(), END.isoformat()]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def everything_readable(project: Project) -> int:
    """Every file that a reader of the folders can see is whole; how many there are."""
    files = [*(project.root / "data").glob("**/[!.]*.parquet"), *Quarantine(project.state).files()]
    heights = {pl.read_parquet(file).height for file in files}
    assert heights <= {19_990, 10}
    return len(files)


def test_killed_at_any_instant_an_extraction_leaves_no_half_file_and_goes_on_where_it_was(project):
    chance, kills, seen = random.Random(5), 0, [0]
    while kills < 8:
        process = started(project)
        while not _landing(project, beyond=seen[-1]) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        seen.append(everything_readable(project))
    assert kills >= 5
    assert seen == sorted(seen)
    extract(project, start=START, end=END)
    landed = pl.read_parquet(project.root / "data" / "events")
    assert landed.height == DAYS * 19_990
    assert landed.select("text", "at").n_unique() == landed.height
    assert Quarantine(project.state).read("events").group_by(REASON).len().rows() == [("n is less than 0", DAYS * 10)]
    assert list((project.root / "data" / "events").glob(".*")) == []


def test_without_room_nothing_is_half_written_and_the_reason_is_told(project):
    process = started(project, "prlimit", "--fsize=30000")
    _, told = process.communicate()
    assert process.returncode == 1
    assert b"UnavailableError" in told
    assert b"could not be written" in told
    assert list((project.root / "data").glob("**/.*")) == []
    assert everything_readable(project) <= 1  # the ten bad rows find room where the good ones do not
    (report,) = extract(project, start=START, end=START + timedelta(days=1))
    assert report.rows == 19_990


def _landing(project: Project, *, beyond: int) -> bool:
    folder = project.root / "data" / "events"
    return folder.is_dir() and len(list(folder.iterdir())) > beyond // 2
