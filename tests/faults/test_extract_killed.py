"""An extraction that dies, by the system's hand or for want of room, and is started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hammering import Seen, hammering
from waiting import PATIENCE, wait_until

from tidemill.definitions.catalog import Catalog, Source
from tidemill.errors import SourceError
from tidemill.extract import Quarantine, extract
from tidemill.extract.validation import REASON
from tidemill.project import Project, open_project

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 60
END = START + timedelta(days=DAYS)

EXTRACT = """
import os, time
from datetime import datetime
import polars as pl
from tidemill.extract import Column, Contract, extracts

CONTRACT = Contract(columns={"n": Column(int, min=0), "at": datetime}, rows=(20_000, 20_000))

asked = 0

@extracts(source="events", contract=CONTRACT)
def events(start, end):
    global asked
    asked += 1
    while asked > float(os.environ.get("AT_MOST", "inf")):
        time.sleep(0.01)  # until it is killed
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


def started(project: Project, *before: str, **settings: str) -> subprocess.Popen[bytes]:
    command = [*before, sys.executable, "-c", RUN, str(project.root), START.isoformat(), END.isoformat()]
    # A module that is compiled under a limit on the size of files would be left behind by halves, for all who come.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment | settings)


def everything_readable(project: Project) -> int:
    """Every file that a reader of the folders can see is whole; how many there are."""
    files = [*(project.root / "data").glob("**/[!.]*.parquet"), *Quarantine(project.state).files()]
    heights = {pl.read_parquet(file).height for file in files}
    assert heights <= {19_990, 10}
    return len(files)


def reading(project: Project) -> AbstractContextManager[Seen]:
    """Read the history all the while: it grows by whole intervals, and nothing of it goes away."""
    counts = [0]

    def count() -> int:
        try:
            return project.offline.scan("events").select(pl.len()).collect().item()
        except SourceError:
            assert counts == [0], "the history is gone"  # nothing has landed yet
            return 0

    def judge(found: int) -> Iterator[str]:
        if found % 19_990 or found < counts[-1]:
            yield f"{found} rows after {counts[-1]}"
        if found != counts[-1]:
            counts.append(found)

    return hammering(count, judge, pause=0.005)


def test_killed_at_any_instant_an_extraction_leaves_no_half_file_and_goes_on_where_it_was(project):
    """Each is killed a moment after its first interval has begun to land, and before its seventh has."""
    chance, landed = random.Random(5), [0]
    with reading(project) as seen:
        for _ in range(8):
            process = started(project, AT_MOST="6")
            wait_until(partial(_landing_or_over, project, process, beyond=landed[-1]), every=0.002)
            time.sleep(chance.random() * 0.02)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            landed.append(everything_readable(project))
        assert landed == sorted(landed)
        assert landed[-1] < 2 * DAYS
        extract(project, start=START, end=END)
        wait_until(lambda: seen.answers > 20)
    assert seen.wrong == []
    history = pl.read_parquet(project.root / "data" / "events")
    assert history.height == DAYS * 19_990
    assert history.select("text", "at").n_unique() == history.height
    assert Quarantine(project.state).read("events").group_by(REASON).len().rows() == [("n is less than 0", DAYS * 10)]
    assert list((project.root / "data" / "events").glob(".*")) == []


def test_without_room_nothing_is_half_written_and_the_reason_is_told(project):
    with reading(project) as seen:
        process = started(project, "prlimit", "--fsize=30000")
        _, told = process.communicate(timeout=PATIENCE)
        wait_until(lambda: seen.answers)
    assert seen.wrong == []
    assert process.returncode == 1
    assert b"UnavailableError" in told
    assert b"could not be written" in told
    assert list((project.root / "data").glob("**/.*")) == []
    assert everything_readable(project) <= 1  # the ten bad rows find room where the good ones do not
    (report,) = extract(project, start=START, end=START + timedelta(days=1))
    assert report.rows == 19_990


def _landing_or_over(project: Project, process: subprocess.Popen[bytes], *, beyond: int) -> bool:
    if process.poll() is not None:
        return True
    folder = project.root / "data" / "events"
    return folder.is_dir() and len(list(folder.iterdir())) > beyond // 2
