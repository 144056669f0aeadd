"""Training sets larger than memory, snapshots, and what a failure leaves behind: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from workshop import Workshop, at

from tidemill.errors import ConfigurationError, ConflictError, NotReproducibleError, UnavailableError
from tidemill.offline import sinking
from tidemill.offline.content import SEGMENT_ROWS
from tidemill.offline.datasets import read_dataset, write_dataset

ROWS = 2 * SEGMENT_ROWS + 1234


@pytest.fixture
def made(workshop: Workshop):
    """A training set of a little more than two segments."""
    rng = np.random.default_rng(3)
    times = pl.datetime_range(at(0), at(99), "1h", eager=True, time_zone="UTC")
    workshop.simple({"id": list(range(100)), "event": times, "x": list(range(100))})
    spine = pl.DataFrame(
        {
            "id": rng.integers(0, 110, ROWS),
            "event_timestamp": pl.Series(["2024-01-03T00:00:00Z"]).str.to_datetime(time_unit="us").gather([0] * ROWS),
            "label": rng.random(ROWS),
        }
    )
    return workshop.store.training_set("v:x", spine, mode="event")


def test_what_is_sunk_is_what_would_have_been_collected(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinking, "DEFAULT_ROWS", SEGMENT_ROWS)
    whole = made.collect()
    digest = made.digest
    told: list[tuple[int, int]] = []
    folder = made.sink(tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    snapshot = read_dataset(folder)
    assert len(snapshot.files) == 3
    assert snapshot.scan().collect().equals(whole)
    assert snapshot.digest == digest
    assert told == [(SEGMENT_ROWS, ROWS), (2 * SEGMENT_ROWS, ROWS), (ROWS, ROWS)]


def test_an_empty_training_set_is_sunk_with_its_columns(workshop: Workshop, tmp_path: Path):
    workshop.simple({"id": [1], "event": [at(0)], "x": [1]})
    spine = pl.DataFrame({"id": [1], "event_timestamp": [at(1)]}).clear()
    folder = workshop.store.training_set("v:x", spine).sink(tmp_path / "out")
    found = read_dataset(folder).scan().collect()
    assert found.height == 0
    assert found.columns == ["id", "event_timestamp", "x"]


def test_a_folder_that_exists_is_not_written_into(made, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConflictError, match="exists already"):
        made.sink(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_half_way_leaves_nothing_behind(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinking, "DEFAULT_ROWS", SEGMENT_ROWS)

    def interrupted(done: int, _total: int) -> None:
        if done > SEGMENT_ROWS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.sink(tmp_path / "deep" / "out", progress=interrupted)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_limit_that_leaves_no_room_is_refused_before_the_work(made, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="too low"):
        made.sink(tmp_path / "out", memory_limit="10mb")
    assert not (tmp_path / "out").exists()


def test_a_lower_limit_means_smaller_pieces():
    rows = [sinking.shares_of(20, limit << 30, held=1 << 29)[0] for limit in (2, 4, 64)]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1] == sinking.DEFAULT_ROWS
    assert all(number % SEGMENT_ROWS == 0 for number in rows)


def test_a_disk_that_fills_is_an_error_that_leaves_nothing_behind(workshop: Workshop, tmp_path: Path):
    """The limit of a file's size stands for the disk's end: the system refuses the write in the same way."""
    workshop.simple({"id": [1], "event": [at(0)], "x": [1]})
    text = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import numpy as np, polars as pl
from workshop import Workshop, at
from tidemill.definitions.types import ValueType
from tidemill.errors import UnavailableError
w = Workshop(Path({str(workshop.root)!r}))
w.view("v", w.source("s"), {{"x": ValueType.INT64}})
noise = np.random.default_rng(0).random(50_000)
spine = pl.DataFrame({{"id": [1] * 50_000, "event_timestamp": [at(1)] * 50_000, "noise": noise}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    w.store.training_set("v:x", spine).sink({str(tmp_path / "full" / "out")!r})
except UnavailableError as error:
    print("refused:", error)
"""
    # -B: a module that is compiled under the limit would be left behind by halves, for all who come.
    run = subprocess.run([sys.executable, "-B", "-c", text], capture_output=True, text=True, check=True)
    assert "Nothing was left behind" in run.stdout
    assert list((tmp_path / "full").iterdir()) == []


def test_a_disk_that_cannot_hold_the_result_is_refused_before_the_work(tmp_path: Path):
    with pytest.raises(UnavailableError, match="do not fit"):
        sinking._check_space(tmp_path / "out", 10**18)


def test_the_same_dataset_is_kept_once_under_its_digest(made, tmp_path: Path):
    first = write_dataset(made, tmp_path / "datasets")
    again = write_dataset(made, tmp_path / "datasets")
    assert first.folder == again.folder == tmp_path / "datasets" / made.digest[:16]
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [made.digest[:16]]
    assert first.manifest["spine"]["rows"] == ROWS
    assert first.manifest["sources"]["s"]["files"][0]["sha256"]
    first.verify()


def test_a_snapshot_whose_files_were_changed_says_so(made, tmp_path: Path):
    snapshot = write_dataset(made, tmp_path / "datasets")
    frame = pl.read_parquet(snapshot.files[0])
    frame.with_columns(label=pl.col("label") + 1).write_parquet(snapshot.files[0])
    with pytest.raises(NotReproducibleError, match="no longer hold"):
        read_dataset(snapshot.folder).verify()


LIMIT = 300 * 2**20


def test_events_of_windows_stay_within_the_limit_too(workshop: Workshop, tmp_path: Path):
    """All events at once would take more: their keys are shared out, and the answers are the same."""
    rng = np.random.default_rng(4)
    rows, keys = 3_000_000, 20_000
    micros = int(at(0).timestamp() * 1e6)
    instant = pl.Datetime("us", "UTC")
    pl.DataFrame(
        {
            "id": rng.integers(0, keys, rows),
            "event": pl.Series(micros + np.sort(rng.integers(0, 100 * 3_600_000_000, rows))).cast(instant),
            "x": rng.random(rows),
        }
    ).write_parquet(workshop.root / "s.parquet", row_group_size=100_000)
    pl.DataFrame(
        {
            "id": rng.integers(0, keys, 2_000),
            "event_timestamp": pl.Series(micros + rng.integers(0, 100 * 3_600_000_000, 2_000)).cast(instant),
        }
    ).write_parquet(workshop.root / "spine.parquet")
    limited = sunk_elsewhere(workshop.root, tmp_path / "limited", LIMIT)
    whole = sunk_elsewhere(workshop.root, tmp_path / "whole", None)
    assert limited["digest"] == whole["digest"]
    assert limited["peak"] < LIMIT < whole["peak"]


def sunk_elsewhere(root: Path, folder: Path, limit: int | None) -> dict[str, Any]:
    """A process of its own sinks a windowed training set; its digest, and the most memory it held."""
    text = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from datetime import timedelta
from pathlib import Path
from workshop import Workshop
from tidemill.definitions.catalog import Aggregation, AggregationFunction
from tidemill.definitions.types import ValueType
from tidemill.offline import sinking, window_answers, window_events
sinking._CHUNK_BYTES = 64 * 2**20  # no plain view is read here
window_answers.PIECE_ROWS = window_events.PIECE_ROWS = 100_000
w = Workshop(Path({str(root)!r}))
parts = [
    Aggregation(name=name, function=AggregationFunction(name), column="x", window=timedelta(hours=90),
                hop=timedelta(hours=1))
    for name in ("sum", "mean", "max")
]
w.view("v", w.source("s"), {{part.name: ValueType.DOUBLE for part in parts}}, aggregations=tuple(parts))
made = w.store.training_set(["v:sum", "v:mean", "v:max"], "spine.parquet")
made.sink({str(folder)!r}, memory_limit={limit!r})
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({{"digest": made.digest, "peak": int(peak.split()[1]) * 1024}}))
"""
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)
