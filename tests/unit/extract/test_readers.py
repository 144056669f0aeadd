"""Readers bind and never paste, read the interval's rows, and never show a secret."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from tidemill.errors import ConfigurationError, InputError, SourceError, TidemillError, UnavailableError
from tidemill.extract import Column, Contract, extract, read_csv, read_parquet, read_sql
from tidemill.extract.locations import reading_below

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)
BETWEEN = (START, START + DAY)
ORDERS = Contract(
    columns={
        "id": Column(int, nullable=False),
        "price": Column(float),
        "paid": Column(bool),
        "at": Column(datetime, nullable=False),
    }
)
QUERY = "select id, price, paid, placed_at as at from orders where placed_at >= :start and placed_at < :end order by id"


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """A database with an order an hour from the last evening of February to the second evening of March."""
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as database:
        database.execute("create table orders (id integer, price real, paid integer, placed_at text)")
        moments = [START + timedelta(hours=hour) for hour in range(-6, 42)]
        database.executemany(
            "insert into orders values (?, ?, ?, ?)",
            [(number, number / 2, number % 2, f"{moment:%Y-%m-%d %H:%M:%S}") for number, moment in enumerate(moments)],
        )
    database.close()
    return f"sqlite:///{file}"


def test_a_query_is_bound_to_its_interval_and_comes_back_typed(shop):
    frame = read_sql(shop, QUERY, {"start": START, "end": START + DAY}, schema=ORDERS.schema).collect()
    assert frame.schema == ORDERS.schema
    assert frame.get_column("id").to_list() == list(range(6, 30))
    assert frame.row(0) == (6, 3.0, False, START)


def test_every_hour_of_a_database_lands_exactly_once(shop):
    hours = [START + timedelta(hours=hour) for hour in range(25)]
    frames = [
        read_sql(shop, QUERY, {"start": first, "end": after}, schema=ORDERS.schema) for first, after in pairwise(hours)
    ]
    assert pl.concat(frames).collect().get_column("id").to_list() == list(range(6, 30))


def test_an_interval_without_rows_has_the_columns_all_the_same(shop):
    empty = {"start": START - 9 * DAY, "end": START - 8 * DAY}
    frame = read_sql(shop, QUERY, empty, schema=ORDERS.schema).collect()
    assert (frame.height, frame.schema) == (0, ORDERS.schema)


def test_a_parameter_is_a_value_and_never_a_piece_of_the_query(shop):
    nasty = "0'; drop table orders; --"
    frame = read_sql(shop, "select count(*) as n from orders where id = :id", {"id": nasty}).collect()
    assert frame.item() == 0
    assert read_sql(shop, "select count(*) as n from orders").collect().item() == 48


def test_whole_numbers_and_fractions_in_one_column_are_fractions_wherever_they_stand(tmp_path):
    url = f"sqlite:///{tmp_path / 'mixed.db'}"
    rows = " union all ".join(["select 1 as x"] * 300 + ["select 2.5", "select null"])
    frame = read_sql(url, rows, schema={"x": pl.Float64()}).collect()
    assert frame.get_column("x").to_list()[-3:] == [1.0, 2.5, None]


@pytest.mark.parametrize(
    ("url", "query", "params", "kind"),
    [
        ("{shop}", "selec 1", {}, InputError),
        ("{shop}", "select * from order_lines", {}, InputError),
        ("{shop}", "select :start", {}, InputError),
        ("{shop}", "select 1 as a, 2 as a", {}, InputError),
        ("nonsense", "select 1", {}, ConfigurationError),
        ("nosuchdb://me:hunter2@host/db?sslpassword=hunter2", "select 1", {}, ConfigurationError),
        ("sqlite:////no/such/folder/x.db", "select 1", {}, UnavailableError),
    ],
)
def test_what_the_database_refuses_is_told_without_secrets(shop, url, query, params, kind):
    with pytest.raises(kind) as caught:
        read_sql(SecretStr(url.format(shop=shop)), query, {**params, "secret": "hunter2"} if params else None)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


CSV = """id;price;paid;at
1;1.5;true;2024-02-29 23:59:59.999999
2;2;false;2024-03-01T00:00:00Z
3;;true;2024-03-01 12:30
4;4.25;;2024-03-02T00:59:59.5+01:00
5;5;true;2024-03-02
"""


def test_a_csv_file_gives_the_rows_of_the_interval_in_the_contracts_types(tmp_path):
    (tmp_path / "orders.csv").write_text(CSV)
    with reading_below(tmp_path):
        frame = read_csv("orders.csv", schema=ORDERS.schema, known="at", between=BETWEEN, separator=";").collect()
    assert frame.schema == ORDERS.schema
    assert frame.rows() == [
        (2, 2.0, False, START),
        (3, None, True, START + timedelta(hours=12, minutes=30)),
        (4, 4.25, None, START + DAY - timedelta(microseconds=500_000)),
    ]


def test_several_csv_files_are_one_table(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("n\n1\n")
    assert read_csv(tmp_path / "*.csv").collect().height == 2


def test_an_instant_that_is_none_is_an_error_and_no_null(tmp_path):
    (tmp_path / "orders.csv").write_text("at\n2024-03-01\n31.12.2024\n")
    frame = read_csv(tmp_path / "orders.csv", schema={"at": pl.Datetime("us", "UTC")})
    with pytest.raises(pl.exceptions.InvalidOperationError, match=r"31\.12\.2024"):
        frame.collect()


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_a_parquet_folder_gives_the_rows_of_the_interval_whatever_its_zone(tmp_path, zone):
    at = pl.datetime_range(datetime(2024, 2, 29), datetime(2024, 3, 2, 23), "1h", time_zone="UTC", eager=True)
    moved = at.dt.replace_time_zone(None) if zone is None else at.dt.convert_time_zone(zone)
    (tmp_path / "orders").mkdir()
    pl.DataFrame({"n": range(72), "at": moved}).write_parquet(tmp_path / "orders" / "part.parquet")
    frame = read_parquet(tmp_path / "orders", known="at", between=BETWEEN).collect()
    assert frame.get_column("n").to_list() == list(range(24, 48))


def test_other_stores_are_read_through_fsspec():
    import fsspec

    written = fsspec.filesystem("memory")
    with written.open("/bucket/orders-1.csv", "wb") as target:
        target.write(b"n\n1\n2\n")
    assert read_csv("memory://bucket/orders-*.csv").collect().get_column("n").to_list() == [1, 2]
    with pytest.raises(SourceError, match="memory://bucket/nothing"):
        read_csv("memory://bucket/nothing.csv").collect()


@pytest.mark.parametrize(
    ("read", "kind", "message"),
    [
        (lambda: read_csv("nowhere.csv"), SourceError, "There is no file .*nowhere.csv"),
        (lambda: read_csv("odd://me:hunter2@host/x.csv?key=hunter2"), ConfigurationError, "odd://host/x.csv cannot"),
        (lambda: read_csv("orders.csv", known="at"), InputError, "needs both"),
        (lambda: read_csv("orders.csv", known="when", between=BETWEEN), SourceError, "no column 'when'; there are id"),
    ],
)
def test_files_that_cannot_be_read_are_named_without_secrets(tmp_path, read, kind, message):
    (tmp_path / "orders.csv").write_text(CSV.replace(";", ","))
    with reading_below(tmp_path), pytest.raises(kind, match=message) as caught:
        read()
    assert "hunter2" not in str(caught.value)


def test_an_extraction_is_one_line_and_paths_are_relative_to_the_project(project, extraction, monkeypatch):
    (project.root / "orders.csv").write_text(
        "id,at,known\n7,2024-03-01T05:00:00Z,2024-03-01T06:00:00Z\n8,2024-03-03,2024-03-03\n"
    )
    extraction("""
    ORDERS = Contract(columns={"id": Column(int, nullable=False), "at": datetime, "known": datetime}, unique="id")

    @extracts(source="orders", contract=ORDERS)
    def orders(start, end):
        return read_csv("orders.csv", schema=ORDERS.schema, known="known", between=(start, end))
    """)
    monkeypatch.chdir("/")
    (report,) = extract(project, start=START, end=START + DAY)
    assert report.rows == 1
    (project.root / "orders.csv").unlink()
    with pytest.raises(TidemillError, match=r"There is no file .*orders\.csv"):
        extract(project, start=START + DAY, end=START + 2 * DAY)


@pytest.mark.parametrize(
    ("values", "dtype"), [("1.0, 19.9", pl.Int64()), ("0, 2", pl.Boolean()), ("1, 3e10", pl.Int32())]
)
def test_a_number_that_a_type_would_change_stops_the_reader_and_is_named(tmp_path, values: str, dtype: pl.DataType):
    rows = " union all ".join(f"select {value} as x" for value in values.split(", "))
    file = tmp_path / "numbers.parquet"
    pl.DataFrame({"x": [float(value) for value in values.split(", ")]}).write_parquet(file)
    for frame in (
        read_sql(f"sqlite:///{tmp_path / 'numbers.db'}", rows, schema={"x": dtype}),
        read_parquet(file, schema={"x": dtype}),
    ):
        with pytest.raises((SourceError, pl.exceptions.PolarsError), match=r"'x' holds|conversion"):
            frame.collect()


def test_whole_numbers_that_a_database_keeps_as_fractions_are_whole(tmp_path):
    query = "select 1.0 as x, 1 as yes union all select 2.0, 0 union all select null, null"
    schema = {"x": pl.Int64(), "yes": pl.Boolean()}
    frame = read_sql(f"sqlite:///{tmp_path / 'numbers.db'}", query, schema=schema).collect()
    assert frame.rows() == [(1, True), (2, False), (None, None)]
    assert frame.schema == schema
