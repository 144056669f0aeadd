"""What a source consisted of when it was read, told by its files."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tidemill.definitions import Source
from tidemill.errors import SourceError
from tidemill.offline import files
from tidemill.offline.edition import Edition
from tidemill.offline.listing import Listed, list_files

T0 = datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SOURCE = Source(name="weather", path="weather", timestamp_field="at", known_field="known")


def write(root: Path, name: str, *rows: tuple[datetime, datetime | None], unit: Literal["us", "ns"] = "us") -> None:
    """A file of rows of (event, known)."""
    instant = pl.Datetime(unit, "UTC")
    (root / "weather").mkdir(exist_ok=True)
    fresh = root / "fresh.tmp"
    pl.DataFrame(rows, schema={"at": instant, "known": instant}, orient="row").write_parquet(fresh)
    fresh.rename(root / "weather" / name)


def up_to(root: Path, at: datetime, source: Source = SOURCE) -> str:
    found = Edition.of(source, root)
    assert found is not None
    return found.up_to(at)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "b.parquet", (T0, T0), (T0 + HOUR, T0 + HOUR))
    return tmp_path


def test_it_is_the_same_while_nothing_changes(root: Path) -> None:
    assert up_to(root, T0) == up_to(root, T0)


@pytest.mark.parametrize("name", ["a.parquet", "c.parquet"])
@pytest.mark.parametrize(
    ("row", "since"),
    [
        ((T0 + 2 * HOUR, T0 + 2 * HOUR), T0 + 2 * HOUR),
        ((T0, T0 + 2 * HOUR), T0 + 2 * HOUR),  # late: an old event that became known later
        ((T0 + 2 * HOUR, T0), T0 + 2 * HOUR),
        ((T0, None), T0),  # known when it happened
    ],
)
def test_a_file_that_is_added_changes_it_from_when_its_first_row_is_known(
    root: Path, name: str, row: tuple[datetime, datetime | None], since: datetime
) -> None:
    instants = [T0 + hours * HOUR / 2 for hours in range(8)]
    before = [up_to(root, at) for at in instants]
    write(root, name, row)
    after = [up_to(root, at) for at in instants]
    assert [one == other for one, other in zip(before, after, strict=True)] == [at < since for at in instants]


def test_a_row_without_a_known_time_beside_one_that_is_known_late_counts_from_its_event(root: Path) -> None:
    """The statistics of known times say nothing of it."""
    before = up_to(root, T0)
    write(root, "c.parquet", (T0, None), (T0, T0 + 5 * HOUR))
    assert up_to(root, T0) != before


def test_an_empty_file_changes_nothing(root: Path) -> None:
    before = up_to(root, T0 + 9 * HOUR)
    write(root, "c.parquet")
    assert up_to(root, T0 + 9 * HOUR) == before


def test_a_file_that_is_replaced_changes_it_though_it_holds_the_same(root: Path) -> None:
    before = up_to(root, T0)
    write(root, "b.parquet", (T0, T0), (T0 + HOUR, T0 + HOUR))
    assert up_to(root, T0) != before


def test_a_file_that_was_written_over_or_renamed_changes_it(root: Path) -> None:
    found = {up_to(root, T0)}
    os.utime(root / "weather" / "b.parquet", ns=(1, 1))
    found.add(up_to(root, T0))
    (root / "weather" / "b.parquet").rename(root / "weather" / "c.parquet")
    found.add(up_to(root, T0))
    assert len(found) == 3


def test_a_file_that_is_taken_away_changes_it(root: Path) -> None:
    write(root, "c.parquet", (T0, T0))
    before = up_to(root, T0)
    (root / "weather" / "c.parquet").unlink()
    assert up_to(root, T0) != before


def test_without_a_known_time_rows_are_known_when_they_happen(root: Path) -> None:
    source = Source(name="weather", path="weather", timestamp_field="at")
    before = up_to(root, T0, source)
    write(root, "c.parquet", (T0, T0 + 5 * HOUR))
    assert up_to(root, T0, source) != before


def test_finer_instants_of_a_file_that_is_added_change_nothing_before_them(root: Path) -> None:
    before = up_to(root, T0 + HOUR)
    write(root, "c.parquet", (T0 + 2 * HOUR, T0 + 2 * HOUR), unit="ns")
    assert up_to(root, T0 + HOUR) == before
    assert up_to(root, T0 + 2 * HOUR) != before


@pytest.mark.parametrize("tells", [True, False])
def test_files_elsewhere_are_known_by_what_their_store_tells_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    """When they were written, and how large they are; where it does not tell that, there is nothing to go by."""
    elsewhere = pafs.LocalFileSystem() if tells else pafs.PyFileSystem(pafs.FSSpecHandler(MemoryFileSystem()))
    with elsewhere.open_output_stream(f"{root}/weather/b.parquet") as target:
        pl.DataFrame({"at": [T0], "known": [T0]}).write_parquet(target)

    def listed(source: Source, where: str) -> list[Listed]:
        return [replace(file, filesystem=elsewhere) for file in list_files(source, where)]

    monkeypatch.setattr(files, "list_files", listed)
    before = Edition.of(SOURCE, root)
    if not tells:
        assert before is None
        return
    assert before is not None
    assert up_to(root, T0) == before.up_to(T0)
    write(root, "b.parquet", (T0, T0), (T0, T0), (T0, T0))
    assert up_to(root, T0) != before.up_to(T0)


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="weather"):
        Edition.of(SOURCE, tmp_path)
