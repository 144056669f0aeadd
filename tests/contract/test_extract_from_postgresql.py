"""Extraction from PostgreSQL: its types, its time zones and its refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from tidemill.errors import InputError, UnavailableError
from tidemill.extract import Column, Contract, read_sql
from tidemill.extract.validation import check, conform

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ORDERS = Contract(
    columns={
        "order_id": Column(int, nullable=False),
        "customer": Column(str),
        "amount": Column(float, min=0),
        "paid": Column(bool),
        "placed_at": Column(datetime, nullable=False),
    },
    unique=("order_id",),
)
QUERY = "select * from orders where placed_at >= :start and placed_at < :end order by order_id"


@pytest.fixture(scope="module")
def shop(postgres: Any) -> str:
    url = postgres.fresh_database()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "create table orders (order_id bigint, customer text, amount numeric(10, 2), paid boolean, "
                "placed_at timestamptz)"
            )
        )
        connection.execute(
            text("insert into orders values (:id, :customer, :amount, :paid, cast(:at as timestamptz))"),
            [
                {"id": 1, "customer": "ada", "amount": 1.5, "paid": True, "at": "2024-02-29 23:59:59.999999+00"},
                {"id": 2, "customer": "ada", "amount": 2, "paid": None, "at": "2024-03-01 00:00:00+00"},
                {"id": 3, "customer": None, "amount": -3.25, "paid": False, "at": "2024-03-01 19:00:00.000001-04:30"},
                {"id": 4, "customer": "Zoë", "amount": None, "paid": True, "at": "2024-03-02 01:00:00+01"},
            ],
        )
    engine.dispose()
    return url


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_query_gives_the_rows_of_its_interval_in_the_contracts_types(shop: str, zone: str) -> None:
    """Whatever zone the database speaks to us in."""
    url = f"{shop}&options=-c%20timezone%3D{zone}"
    frame = read_sql(url, QUERY, {"start": START, "end": START + DAY}, schema=ORDERS.schema).collect()
    checked = check(conform(frame, ORDERS, "orders"), ORDERS)
    assert checked.good.schema == pl.Schema(ORDERS.schema)
    assert checked.good.rows() == [(2, "ada", 2.0, None, START)]
    assert checked.reasons() == [("amount is less than 0", 1)]
    assert checked.bad["placed_at"].to_list() == [datetime(2024, 3, 1, 23, 30, 0, 1, tzinfo=UTC)]


def test_an_interval_without_rows_has_the_contracts_columns(shop: str) -> None:
    frame = read_sql(shop, QUERY, {"start": START + 9 * DAY, "end": START + 10 * DAY}, schema=ORDERS.schema).collect()
    assert conform(frame, ORDERS, "orders").schema == pl.Schema(ORDERS.schema)
    assert frame.is_empty()


def test_a_value_is_bound_and_never_a_piece_of_the_query(shop: str) -> None:
    name = "ada' or 'a' = 'a"
    assert read_sql(shop, "select order_id from orders where customer = :name", {"name": name}).collect().is_empty()


def test_what_the_database_refuses_is_told_without_secrets(shop: str) -> None:
    with pytest.raises(InputError, match='column "nothing" does not exist'):
        read_sql(shop, "select nothing from orders")
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        read_sql("postgresql+psycopg://me:hunter2@127.0.0.1:1/shop", "select 1")
    assert "hunter2" not in str(caught.value)
