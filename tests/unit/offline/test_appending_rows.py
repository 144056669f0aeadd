"""Rows added to a source become files that appear complete, all of them or none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from workshop import Workshop, ask, at

from tidemill.definitions.types import ValueType
from tidemill.errors import InputError


def asked(*ids: int) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "event_timestamp": [at(9)] * len(ids)})


def test_the_first_rows_of_a_source_that_will_be_one_file_are_read_back(workshop: Workshop):
    """A push may come before anything was ever written to the source's path."""
    workshop.view("v", workshop.source("s", path="data/s.parquet"), {"x": ValueType.INT64})
    workshop.store.append("s", {"id": [1], "event": [at(0)], "x": [10]})
    workshop.store.append("s", {"id": [2], "event": [at(0)], "x": [20]})
    assert workshop.collect("v:x", asked(1, 2))["x"].to_list() == [10, 20]
    pl.DataFrame({"id": [3, 1], "event": [at(0), at(0)], "x": [30, 11]}).write_parquet(workshop.root / "data/s.parquet")
    assert workshop.collect("v:x", asked(1, 2, 3))["x"].to_list() == [10, 20, 30], "what was appended comes after"


def test_two_sources_in_one_folder_do_not_mix(workshop: Workshop):
    for name in ("s", "t"):
        workshop.view(f"v{name}", workshop.source(name, path=f"data/{name}.parquet"), {name: ValueType.INT64})
        workshop.store.append(name, {"id": [1], "event": [at(0)], name: [len(name)]})
    assert workshop.collect(["vs:s", "vt:t"], asked(1)).select("s", "t").rows() == [(1, 1)]


def test_a_disk_that_fills_while_rows_are_added_leaves_no_partition_behind(workshop: Workshop):
    """The first partition fits, the second does not: neither is there afterwards."""
    for year in (2023, 2024):
        folder = workshop.root / "s" / f"year={year}"
        folder.mkdir(parents=True)
        pl.DataFrame({"id": [year], "event": [at(0)], "x": [0.5]}).write_parquet(folder / "0.parquet")
    before = {file: file.read_bytes() for file in workshop.root.rglob("*.parquet")}
    text = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import numpy as np, polars as pl
from workshop import Workshop, at
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError
w = Workshop(Path({str(workshop.root)!r}))
w.view("v", w.source("s", path="s"), {{"x": ValueType.DOUBLE, "year": ValueType.INT64}})
rows = 50_001
noise = np.random.default_rng(0).random(rows)
frame = pl.DataFrame({{"id": range(rows), "event": [at(1)] * rows, "x": noise, "year": [2023] + [2024] * (rows - 1)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    w.store.append("s", frame)
except SourceError as error:
    print("refused:", error)
"""
    # -B: a module that is compiled under the limit would be left behind by halves, for all who come.
    run = subprocess.run([sys.executable, "-B", "-c", text], capture_output=True, text=True, check=True)
    assert "Nothing was added" in run.stdout
    assert {file: file.read_bytes() for file in workshop.root.rglob("*") if file.is_file()} == before


def test_appending_leaves_what_is_there_untouched(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    file = workshop.root / "s.parquet"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    workshop.store.append("s", pl.DataFrame({"x": [11], "id": [1], "event": [at(1)]}))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert workshop.collect("v:x", ask((1, at(2))))["x"].to_list() == [11]


def test_appending_under_a_name_twice_counts_once(workshop: Workshop):
    (workshop.root / "s").mkdir()
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})
    rows = pl.DataFrame({"id": [1], "event": [at(0)], "x": [10]})
    first = workshop.store.append("s", rows, name="2024-01-01")
    assert workshop.store.append("s", rows, name="2024-01-01") == first
    assert workshop.store.scan("s").collect().height == 1
    assert [path.name for path in (workshop.root / "s").iterdir()] == ["2024-01-01.parquet"]


@pytest.mark.parametrize(
    "rows",
    [
        {"id": [1], "event": [at(0)]},
        {"id": [1], "event": [at(0)], "x": [1], "extra": [1]},
        {"id": ["a"], "event": [at(0)], "x": [1]},
        {"id": [1], "event": [at(0)], "x": [1.5]},
    ],
)
def test_rows_that_do_not_fit_a_source_are_refused_and_leave_nothing(workshop: Workshop, rows: dict):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    before = sorted(workshop.root.rglob("*"))
    with pytest.raises(InputError):
        workshop.store.append("s", rows)
    assert sorted(workshop.root.rglob("*")) == before


def test_appending_to_a_partitioned_folder_writes_into_its_partitions(workshop: Workshop):
    for year in (2023, 2024):
        folder = workshop.root / "s" / f"year={year}"
        folder.mkdir(parents=True)
        pl.DataFrame({"id": [1], "event": [at(0)], "x": [year]}).write_parquet(folder / "a.parquet")
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64, "year": ValueType.INT64})
    workshop.store.append("s", {"id": [2, 3], "event": [at(1)] * 2, "x": [1, 2], "year": [2024, 2025]})
    spine = ask((2, at(2)), (3, at(2)))
    assert workshop.collect(["v:x", "v:year"], spine).select("x", "year").rows() == [(1, 2024), (2, 2025)]
