"""`tidemill init` makes a project that runs as it stands, of tables as people have them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tidemill.cli.rows import typed_row
from tidemill.errors import InputError
from tidemill.feast.apply import apply
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import open_project
from tidemill.scaffold import create_project

AT = datetime(2024, 3, 2, tzinfo=UTC)
Table = Callable[[str, str | bytes], Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    def write(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a project is made; its Redis is stopped. YAML takes a project of this name for a yes or no."""
    yield tmp_path / "made" / "no"
    EmbeddedRedis(tmp_path / "made" / "no" / ".tidemill" / "redis").stop()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("driver.csv", "driver_id,at,trips\n7,2024-03-01 10:00:00,3\n"),
        ("class.csv", "import_id,at,from\n7,2024-03-01T10:00:00Z,3\n"),
        ("timedelta.csv", "tidemill_id;at;Int64\n7;2024-03-01T12:00:00+02:00;3\n"),
        ("2024 orders.csv", '\ufeffcustomer id\tat\t"a ""b"" \\n"\nO\'Brien "$(x)" y\t2024-03-01 10:00:00\t3\n'),
        ("sources.csv", "history,at,created,größe\na,2024-03-01 10:00:00,2024-03-01 10:30:00,3\n"),
        ("mixed.csv", "user_id,at,n\nx,2024-03-01,1\ny,2024-03-01 09:00:00.5,2\nz,2024-03-01T11:00+01,3\n"),
    ],
)
def test_tables_of_any_names_become_projects_that_run(folder: Path, table: Table, name: str, content: str) -> None:
    made = create_project(folder, data=table(name, content))
    with closing(open_project(folder)) as project:
        assert project.name == "no"
        apply(project, at=AT)
        (run,) = project.materializer.materialize(until=AT, at=AT)
        assert run.error is None
        _, _, _, service, _, pair = shlex.split(made.commands[-1])
        read = project.online.read(service, [typed_row(project.catalog, [pair])], at=AT)
    assert [read.values[name] for name in read.names] == [[3]]
    assert len(made.features) == 1


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (
            "a.csv",
            "id,at,x\n1,1709287200,3\n",
            {"time": "at"},
            r"'at' is Int64 \(1709287200\); the event time is a date",
        ),
        ("a.csv", "id,at,x\n1,at noon,3\n", {"time": "at"}, r"'at' is String \(at noon\)"),
        ("a.csv", "id,at,x,x\n1,2024-03-01,3,4\n", {}, "columns of the same name: x"),
        ("a.csv", "id,at,größe\n1,2024-03-01,3\n".encode("latin-1"), {}, "not written in UTF-8"),
        ("a.csv", "id,at,x\n1,2024-03-01,é\n".encode("latin-1"), {}, "cannot be read: invalid utf-8"),
        ("a.csv", "id,at,x\n1,2024-03-01,3,4\n", {}, "cannot be read: found more fields"),
        ("a.csv", "", {}, "cannot be read: empty CSV"),
        ("a.csv", "id,at,x\n", {}, "holds no rows"),
    ],
)
def test_what_no_project_can_be_made_of_is_told_and_nothing_is_written(
    folder: Path, table: Table, name: str, content: str | bytes, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create_project(folder, data=table(name, content), **options)
    assert not folder.parent.exists()


def test_numbers_that_turn_into_fractions_late_in_a_file_are_fractions(folder: Path, table: Table) -> None:
    rows = [f"{number},2024-03-01,{number}" for number in range(500)]
    create_project(folder, data=table("late.csv", "\n".join(["id,at,x", *rows, "9,2024-03-02,1.5"])))
    assert pl.read_parquet(folder / "data" / "late").get_column("x").sum() == sum(range(500)) + 1.5


def test_only_a_time_is_taken_for_when_a_row_became_known(folder: Path, table: Table) -> None:
    made = create_project(folder, data=table("t.csv", "id,at,created,x\n1,2024-03-01,by bob,3\n"))
    assert [name for name, _ in made.features] == ["created", "x"]
    assert "created_timestamp_column" not in (folder / "sources.py").read_text()
