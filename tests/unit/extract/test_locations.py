"""What readers find where they are pointed at, and what forms of values they understand there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from http_servers import QuietHandler, answering

from tidemill.errors import SourceError
from tidemill.extract import extract, read_csv, read_parquet
from tidemill.extract.locations import reading_below
from tidemill.project import Project

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)
ROW = pl.DataFrame({"id": [1], "at": [START]})


def write(file: Path, frame: pl.DataFrame = ROW) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(file)


def test_of_a_folder_what_other_programs_keep_beside_the_data_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "lake" / "part-0.parquet")
    write(tmp_path / "lake" / "_temporary" / "0" / "part-1.parquet")
    write(tmp_path / "lake" / ".hidden.parquet")
    for name in ("_SUCCESS", ".part-0.parquet.crc", "part-2.parquet.tmp", "README.md"):
        (tmp_path / "lake" / name).write_bytes(b"no data")
    with reading_below(tmp_path):
        assert read_parquet("lake").collect().equals(ROW)
        assert read_parquet("lake/", known="at", between=(START, START + DAY)).collect().equals(ROW)


def test_the_names_of_partitions_are_columns(tmp_path: Path) -> None:
    for day in (1, 2):
        write(tmp_path / "lake" / f"day=2024-03-0{day}" / "part-0.parquet", pl.DataFrame({"id": [day]}))
    (tmp_path / "lake" / "_SUCCESS").touch()
    found = read_parquet(tmp_path / "lake").collect()
    assert found.rows() == [(day, START.date().replace(day=day)) for day in (1, 2)]


def test_a_folder_of_csv_files_is_one_table_and_so_are_files_of_no_known_name(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "_SUCCESS"):
        (tmp_path / name).write_text("n\n1\n")
    assert read_csv(tmp_path).collect().get_column("n").to_list() == [1, 1]
    write(tmp_path / "plain" / "000000_0")
    assert read_parquet(tmp_path / "plain").collect().equals(ROW)


@pytest.mark.parametrize("path", ["lake", "lake/*.parquet", "nowhere/**/*.parquet", "nowhere.parquet"])
def test_where_there_is_nothing_the_place_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "lake").mkdir()
    with reading_below(tmp_path), pytest.raises(SourceError, match=r"There is no (Parquet )?file .*(lake|nowhere)"):
        read_parquet(path)


def test_brackets_in_names_are_letters_where_there_is_such_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a [1]" / "orders[2024].parquet")
    with reading_below(tmp_path / "a [1]"):
        assert read_parquet("orders[2024].parquet").collect().equals(ROW)
        assert read_parquet("orders*.parquet").collect().equals(ROW)


def test_folders_of_other_stores_are_read_as_those_of_this_machine() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe({"/shop/exports/a.csv": b"n\n1\n", "/shop/exports/more/b.csv": b"n\n2\n", "/shop/exports/_SUCCESS": b""})
    for address in ("memory://shop/exports", "memory://shop/exports/"):
        assert read_csv(address).collect().get_column("n").to_list() == [1, 2]
    with pytest.raises(SourceError, match="memory://shop/imports"):
        read_csv("memory://shop/imports/")
    store.rm("/shop", recursive=True)


@pytest.mark.parametrize("values", [[1_709_251_200], [1.5], [True]])
def test_a_column_that_is_no_time_gives_no_interval_instead_of_an_empty_one(tmp_path: Path, values: list[Any]) -> None:
    write(tmp_path / "orders.parquet", pl.DataFrame({"at": values}))
    with pytest.raises(SourceError, match=r"Column 'at' is .* which is no time"):
        read_parquet(tmp_path / "orders.parquet", known="at", between=(START, START + DAY))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-01 10:00:00+01", START + timedelta(hours=9)),  # PostgreSQL
        ("2024-03-01 10:00:00.5-0330", START + timedelta(hours=13, minutes=30, milliseconds=500)),
        ("2024-03-01 10:00:00 UTC", START + timedelta(hours=10)),  # BigQuery
        ("2024-03-01T10:00:00 UTC", START + timedelta(hours=10)),
        ("2024-03-01 10:00:00 +02:00", START + timedelta(hours=8)),
        ("2024-03-01T10:00:00 +02:00", START + timedelta(hours=8)),
        (" 2024-03-01t10:00z ", START + timedelta(hours=10)),
        ("2024-03-01T10:00+05:30", START + timedelta(hours=4, minutes=30)),
        ("2024-03-01", START),
    ],
)
def test_instants_are_read_however_databases_write_them(tmp_path: Path, text: str, moment: datetime) -> None:
    (tmp_path / "orders.csv").write_text(f'at\n"{text}"\n')
    found = read_csv(tmp_path / "orders.csv", schema={"at": pl.Datetime("us", "UTC")}).collect()
    assert found.item() == moment


@pytest.mark.parametrize(("texts", "value"), [("true,T,yes,1,Y, TRUE ", True), ("false,f,No,0,n,False", False)])
def test_yes_and_no_are_read_however_they_are_written(tmp_path: Path, texts: str, value: bool) -> None:
    (tmp_path / "orders.csv").write_text("\n".join(["ok,n", *(f"{text},1" for text in texts.split(",")), ",1"]))
    found = read_csv(tmp_path / "orders.csv", schema={"ok": pl.Boolean()}).collect()
    assert found.get_column("ok").to_list() == [value] * 6 + [None]


def test_what_is_neither_yes_nor_no_is_an_error_and_no_null(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("ok\nmaybe\n")
    with pytest.raises(pl.exceptions.PolarsError, match="replace"):
        read_csv(tmp_path / "orders.csv", schema={"ok": pl.Boolean()}).collect()


class _Nothing(QuietHandler):
    """Whatever is asked for is not there."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET


@pytest.fixture
def host() -> Iterator[str]:
    with answering(_Nothing) as address:
        yield address


@pytest.mark.parametrize("address", ["http://me:hunter2@{host}/x.csv", "http://{host}/x.csv?sig=hunter2&se=2030"])
def test_secrets_of_an_address_where_nothing_is_are_not_told(
    project: Project, extraction: Callable[[str], None], host: str, address: str
) -> None:
    extraction(f"""
    @extracts(source="orders")
    def orders(start, end):
        return read_csv({address.format(host=host)!r})
    """)
    with pytest.raises(SourceError, match=f"'orders' failed .*{host}") as caught:
        extract(project, start=START, end=START + DAY)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
