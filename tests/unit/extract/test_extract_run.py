"""What lands, what waits in quarantine, and what stops a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tidemill.errors import ConflictError, InputError, NotDefinedError, SourceError
from tidemill.extract import Quarantine, extract, fetch
from tidemill.extract.landing import alone
from tidemill.extract.validation import REASON

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)

ORDERS = """
    ORDERS = Contract(
        columns={
            "id": Column(int, nullable=False),
            "price": Column(float, min=0),
            "at": Column(datetime, nullable=False),
            "known": datetime,
        },
        unique=("id",),
        rows=(1, 24),
        most_bad=0.2,
    )

    @extracts(source="orders", contract=ORDERS)
    def orders(start, end):
        return table().filter(pl.col("known").is_between(start, end, closed="left"))

    def table():
        hours = pl.datetime_range(datetime(2024, 3, 1), datetime(2024, 3, 3, 23), "1h", time_zone="UTC", eager=True)
        price = pl.int_range(len(hours), eager=True) - 1
        return pl.DataFrame({"id": price + 1, "price": price.cast(pl.Float64), "at": hours, "known": hours})
"""


def landed(project) -> pl.DataFrame:
    return pl.read_parquet(project.root / "data" / "orders").sort("id")


def test_a_bad_row_waits_in_quarantine_with_its_reason_and_the_others_land(project, extraction):
    extraction(ORDERS)
    (report,) = extract(project, start=START, end=START + 2 * DAY)
    assert (report.rows, report.quarantined, report.reasons) == (47, 1, (("price is less than 0", 1),))
    assert landed(project).get_column("id").to_list() == list(range(1, 48))
    (file,) = report.quarantine
    assert file == str(project.state / "quarantine/orders/20240301T000000Z_20240302T000000Z.parquet")
    waiting = pl.read_parquet(file)
    assert waiting.select("id", REASON).rows() == [(0, "price is less than 0")]
    assert Quarantine(project.state).reasons("orders") == [("price is less than 0", 1)]
    assert json.dumps(report.reasons)


def test_landing_again_changes_nothing(project, extraction):
    extraction(ORDERS)
    extract(project, start=START, end=START + DAY)
    (report,) = extract(project, start=START, end=START + 2 * DAY)
    assert (report.intervals, report.skipped, report.rows, report.quarantined) == (2, 1, 24, 0)
    assert landed(project).height == 47


def test_any_mixture_of_intervals_gives_the_same_rows(project, extraction):
    extraction(ORDERS)
    extract(project, start=START + timedelta(hours=3), end=START + timedelta(hours=7), every="1h")
    extract(project, start=START, end=START + 3 * DAY)
    assert landed(project).get_column("id").to_list() == list(range(1, 72))


def test_a_source_that_was_mended_leaves_no_row_in_quarantine(project, extraction):
    extraction(ORDERS)
    extract(project, start=START, end=START + DAY)
    for file in (project.root / "data" / "orders").iterdir():
        file.unlink()
    extraction(ORDERS.replace("- 1", "+ 1"))
    extract(project, start=START, end=START + DAY)
    assert landed(project).height == 24
    assert Quarantine(project.state).files() == []
    assert Quarantine(project.state).reasons("orders") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"price": price.cast(pl.Float64), ', "", "lacks the columns price"),
        ("price.cast(pl.Float64)", "price.cast(pl.String)", "'price' extracted for 'orders' is String"),
        ("rows=(1, 24)", "rows=(1, 23)", "24 rows where its contract expects 1 to 23"),
        ("rows=(1, 24)", "rows=(25, None)", "24 rows where its contract expects at least 25"),
        ("min=0", "min=10", r"11 of 24 rows .* break its contract, where 5 may: price is less than 10 \(11\)"),
        ('"at": hours,', '"at": hours.cast(pl.String),', "'at' extracted for 'orders' is String"),
        ("return table().filter", "return table(); table().filter", "48 rows .* became known outside of"),
        ("return table()", "return 1 / 0 or table()", "The extraction of 'orders' failed for .* ZeroDivisionError"),
        ("return table()", "return pl.DataFrame() or table()", "failed|without columns"),
    ],
)
def test_a_broken_contract_stops_the_run_and_nothing_lands(project, extraction, old, new, message):
    assert old in ORDERS
    extraction(ORDERS.replace(old, new))
    with pytest.raises(SourceError, match=message):
        extract(project, start=START, end=START + DAY)
    assert not list((project.root / "data").glob("**/*.parquet"))


def test_rows_that_were_too_many_to_be_bad_can_be_looked_at(project, extraction):
    extraction(ORDERS.replace("min=0", "min=10"))
    with pytest.raises(SourceError, match=r"The bad rows are in .*quarantine/orders/"):
        extract(project, start=START, end=START + DAY)
    assert Quarantine(project.state).read("orders").height == 11


def test_what_landed_before_a_broken_interval_stays_and_the_next_run_goes_on(project, extraction):
    extraction(ORDERS.replace("return table()", "assert start.day < 3, 'third'\n        return table()"))
    with pytest.raises(SourceError, match="AssertionError: third"):
        extract(project, start=START, end=START + 3 * DAY)
    assert landed(project).height == 47
    extraction(ORDERS)
    (report,) = extract(project, start=START, end=START + 3 * DAY)
    assert (report.skipped, report.rows) == (2, 24)


def test_fetch_gives_the_good_rows_and_lands_nothing(project, extraction):
    extraction(ORDERS)
    assert fetch(project, "orders", start=START, end=START + DAY).get_column("id").to_list() == list(range(1, 24))
    assert not (project.root / "data").exists()
    assert Quarantine(project.state).files() == []


def test_a_row_without_its_times_is_bad_even_if_the_contract_does_not_say_so(project, extraction):
    body = ORDERS.replace('"known": hours}', '"known": hours.set(pl.Series(hours.dt.hour() == 5), None)}')
    body = body.replace(".filter(", ".filter(pl.col('known').is_null() | ").replace("(1, 24)", "(1, 26)")
    extraction(body)
    (report,) = extract(project, start=START, end=START + DAY, sources=["orders"])
    assert dict(report.reasons) == {"price is less than 0": 1, "known is null": 3}


def test_without_a_contract_null_times_stop_the_run(project, extraction):
    extraction("""
    @extracts(source="orders")
    def orders(start, end):
        return pl.DataFrame({"at": [start, None], "known": [start, start]})
    """)
    with pytest.raises(SourceError, match="'at' extracted for 'orders' has nulls"):
        extract(project, start=START, end=START + DAY)


def test_pandas_and_lazy_frames_land_alike(project, extraction):
    for kind in ("lazy()", "to_pandas()"):
        extraction(f"""
        @extracts(source="orders")
        def orders(start, end):
            return pl.DataFrame({{"n": [1], "at": [start], "known": [start]}}).{kind}
        """)
        offset = DAY if kind == "lazy()" else 2 * DAY
        extract(project, start=START + offset, end=START + offset + DAY)
    assert pl.read_parquet(project.root / "data" / "orders").height == 2


def test_two_extractions_of_one_source_never_run_together(project, extraction):
    extraction(ORDERS)
    with (
        alone(project.state / "locks" / "extract-orders.lock", "extracting"),
        pytest.raises(ConflictError, match="extracting 'orders' already"),
    ):
        extract(project, start=START, end=START + DAY)
    assert extract(project, start=START, end=START + DAY)[0].rows == 23


def test_bad_requests_are_told_what_is_wrong(project, extraction):
    extraction(ORDERS)
    with pytest.raises(NotDefinedError, match="Did you mean 'orders'"):
        extract(project, start=START, end=START + DAY, sources=["order"])
    with pytest.raises(InputError, match=r"ends .* before it starts"):
        extract(project, start=START + DAY, end=START)


def test_progress_adds_up_to_the_whole(project, extraction):
    extraction(ORDERS)
    told: list[float] = []
    extract(project, start=START, end=START + 3 * DAY, progress=told.append)
    assert sum(told) == pytest.approx(1.0)
