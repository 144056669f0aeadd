"""Contracts say what is wrong with a row, and which frames are not what was promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tidemill.errors import DefinitionError, SourceError
from tidemill.extract import Column, Contract
from tidemill.extract.validation import REASON, check, check_share, check_volume, conform

DAY = timedelta(days=1)


def reasons(frame: pl.DataFrame, contract: Contract, **options) -> list[str]:
    return check(frame, contract, **options).bad.get_column(REASON).to_list()


def test_good_rows_and_bad_rows_both_come_back_and_every_fault_is_named():
    contract = Contract(
        columns={
            "id": Column(str, nullable=False),
            "price": Column(float, min=0, max=100),
            "shop": Column(str, allowed=["north", "south"]),
        }
    )
    frame = pl.DataFrame(
        {
            "id": ["a", None, "c", "d", "e"],
            "price": [0.0, 200.0, float("nan"), None, 100.0],
            "shop": ["north", "east", None, "south", "south"],
        }
    )
    found = check(frame, contract)
    assert found.good.equals(frame[[0, 3, 4]])
    assert found.bad.drop(REASON).equals(frame[[1, 2]])
    assert found.bad.get_column(REASON).to_list() == [
        "id is null; price is more than 100; shop is not one of north, south",
        "price is not a number",
    ]
    assert found.reasons()[0] == ("id is null", 1)


@pytest.mark.parametrize("value", [-1, 11])
def test_bounds_are_part_of_the_range_and_beyond_them_is_not(value):
    contract = Contract(columns={"n": Column(int, min=0, max=10)})
    assert reasons(pl.DataFrame({"n": [0, 10, None]}), contract) == []
    assert len(reasons(pl.DataFrame({"n": [value]}), contract)) == 1


@pytest.mark.parametrize("least", [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1)])
def test_instants_have_ranges_too(least):
    contract = Contract(columns={"at": Column(datetime, min=least)})
    at = pl.Series("at", [datetime(2023, 12, 31, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)]).dt.cast_time_unit("us")
    assert len(reasons(pl.DataFrame([at]), contract)) == 1


def test_infinity_is_more_than_any_bound_and_unbounded_floats_may_be_anything():
    infinite = pl.DataFrame({"x": [float("inf"), float("-inf"), float("nan")]})
    assert reasons(infinite, Contract(columns={"x": Column(float, max=1e300)})) == [
        "x is more than 1e+300",
        "x is not a number",
    ]
    assert reasons(infinite, Contract(columns={"x": float})) == []


def test_of_rows_with_one_name_the_first_good_one_is_kept():
    contract = Contract(columns={"id": Column(str, nullable=False), "n": Column(int, min=0)}, unique=("id",))
    frame = pl.DataFrame({"id": ["a", "a", "a", "b", None, None], "n": [-1, 1, 2, 3, 4, 5]})
    found = check(frame, contract)
    assert found.good.rows() == [("a", 1), ("b", 3)]
    assert found.bad.get_column(REASON).to_list() == [
        "n is less than 0",
        "id was there before",
        "id is null",
        "id is null",
    ]


def test_several_columns_name_a_row_together():
    contract = Contract(columns={"shop": str, "day": int}, unique=("shop", "day"))
    found = check(pl.DataFrame({"shop": ["n", "n", "s", "n"], "day": [1, 2, 1, 1]}), contract)
    assert (found.good.height, found.bad.rows()) == (3, [("n", 1, "shop, day was there before")])


def test_columns_beyond_the_contract_are_kept_untouched():
    frame = pl.DataFrame({"id": ["a"], "note": [[1, 2]]})
    assert check(conform(frame, Contract(columns={"id": str}), "orders"), Contract(columns={"id": str})).good.equals(
        frame
    )


def test_an_empty_frame_passes():
    contract = Contract(columns={"id": Column(str, nullable=False)}, unique=("id",))
    found = check(pl.DataFrame(schema={"id": pl.String}), contract)
    assert (found.good.height, found.bad.height) == (0, 0)


def test_a_missing_column_names_itself_and_what_is_there():
    with pytest.raises(SourceError, match=r"'orders' lacks the columns price; it has id\."):
        conform(pl.DataFrame({"id": ["a"]}), Contract(columns={"id": str, "price": float}), "orders")


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (pl.Series("x", ["1"]), pl.Int64),
        (pl.Series("x", [1.5]), pl.Int64),
        (pl.Series("x", [2**53 + 1]), pl.Float64),
        (pl.Series("x", [2**40]), pl.Int32),
        (pl.Series("x", [1]), pl.String),
        (pl.Series("x", [1]), pl.Datetime("us", "UTC")),
        (pl.Series("x", [1], dtype=pl.Int64).cast(pl.Datetime("ns")), pl.Datetime("us", "UTC")),
        (pl.Series("x", [1]), pl.Boolean),
    ],
)
def test_types_in_which_something_would_get_lost_are_refused(values, declared):
    with pytest.raises(SourceError, match="'x' extracted for 'orders'"):
        conform(values.to_frame(), Contract(columns={"x": declared}), "orders")


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (pl.Series("x", [1, None], dtype=pl.Int8), pl.Int64()),
        (pl.Series("x", [1, 2]), pl.Float64()),
        (pl.Series("x", [None, None]), pl.String()),
        (pl.Series("x", [], dtype=pl.Null), pl.Float64()),
        (pl.Series("x", [float("nan"), 1.5], dtype=pl.Float32), pl.Float64()),
        (pl.Series("x", [1_000], dtype=pl.Int64).cast(pl.Datetime("ns", "Europe/Paris")), pl.Datetime("us", "UTC")),
        (pl.Series("x", [1], dtype=pl.Int64).cast(pl.Datetime("ms")), pl.Datetime("us", "UTC")),
    ],
)
def test_types_that_lose_nothing_are_brought_to_the_declared_one(values, declared):
    found = conform(values.to_frame(), Contract(columns={"x": declared}), "orders").get_column("x")
    assert found.dtype == declared
    assert found.null_count() == values.null_count()


@pytest.mark.parametrize("hour", [1, 2], ids=["of which there are two", "of which there is none"])
def test_a_time_without_a_zone_is_utc_whatever_zone_the_contract_shows_it_in(hour: int):
    # New York, 2013: 01:30 on 3 November came twice, 02:30 on 10 March never.
    day = datetime(2013, 11, 3) if hour == 1 else datetime(2013, 3, 10)
    naive = pl.Series("x", [day + timedelta(hours=hour, minutes=30), None], dtype=pl.Datetime("us"))
    contract = Contract(columns={"x": pl.Datetime("us", "America/New_York")})
    found = conform(naive.to_frame(), contract, "orders").get_column("x")
    assert found.dtype == pl.Datetime("us", "America/New_York")
    assert found.dt.convert_time_zone("UTC").to_list() == naive.dt.replace_time_zone("UTC").to_list()


def test_volume_grows_with_the_interval_and_of_a_part_only_the_most_is_asked():
    contract = Contract(columns={"id": str}, rows=(10, 20))
    assert contract.volume(DAY) == (10, 20)
    assert contract.volume(3 * DAY) == (30, 60)
    assert contract.volume(DAY / 24) == (0, 20)
    assert contract.volume(DAY * 1.5) == (10, 40)
    check_volume(10, DAY, contract, "orders")
    check_volume(0, DAY / 24, contract, "orders")
    for rows, length in ((9, DAY), (21, DAY), (21, DAY / 24), (9, None)):
        with pytest.raises(SourceError, match="rows where its contract expects"):
            check_volume(rows, length, contract, "orders")


def test_a_fault_is_counted_as_one_whatever_the_values_it_names():
    contract = Contract(columns={"kind": Column(str, allowed=["new; unpaid", "paid"])})
    assert check(pl.DataFrame({"kind": ["lost"]}), contract).reasons() == [("kind is not one of new, unpaid, paid", 1)]


def test_a_share_of_bad_rows_is_borne_rounded_up_to_whole_rows():
    contract = Contract(columns={"n": Column(int, min=0)}, most_bad=0.1)
    check_share(check(pl.DataFrame({"n": [-1, 1, 1]}), contract), contract, "orders")
    with pytest.raises(SourceError, match=r"2 of 3 rows .* where 1 may: n is less than 0 \(2\)"):
        check_share(check(pl.DataFrame({"n": [-1, -1, 1]}), contract), contract, "orders")
    strict = Contract(columns={"n": Column(int, min=0)}, most_bad=0)
    with pytest.raises(SourceError, match="1 of 3 rows"):
        check_share(check(pl.DataFrame({"n": [-1, 1, 1]}), strict), strict, "orders")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Column(int, min=2, max=1),
        lambda: Column(str, allowed="abc"),
        lambda: Column(str, allowed=[]),
        lambda: Column("int"),
        lambda: Column(str, min=3),
        lambda: Column(float, max=float("nan")),
        lambda: Column(str, allowed=["a", 1]),
        lambda: Contract(columns={"a": str}, unique=("b",)),
        lambda: Contract(columns={"a": str}, rows=(5, 1)),
        lambda: Contract(columns={"a": str}, rows=(-1, None)),
        lambda: Contract(columns={"a": str}, per="0s"),
        lambda: Contract(columns={"a": str}, most_bad=1.5),
    ],
)
def test_a_contract_that_means_nothing_is_refused_where_it_is_written(declare):
    with pytest.raises(DefinitionError):
        declare()
