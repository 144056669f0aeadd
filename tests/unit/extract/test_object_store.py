"""Extraction from an object store: a real server that speaks S3, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO

import httpx
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from tidemill.errors import SourceError
from tidemill.extract import extract, read_csv, read_parquet

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
BETWEEN = (START, START + DAY)


@pytest.fixture(scope="module")
def lake() -> Iterator[dict[str, str]]:
    """The storage options of a server with a bucket `lake`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    assert httpx.put(f"{url}/lake").status_code == 200
    yield {
        "aws_endpoint_url": url,
        "aws_access_key_id": "me",
        "aws_secret_access_key": "hunter2",
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    server.stop()


def put(lake: dict[str, str], name: str, content: bytes) -> None:
    httpx.put(f"{lake['aws_endpoint_url']}/lake/{name}", content=content).raise_for_status()


def three_days() -> pl.DataFrame:
    at = pl.datetime_range(START - DAY, START + 2 * DAY, "1h", closed="left", time_zone="UTC", eager=True)
    return pl.DataFrame({"id": range(len(at)), "at": at, "known": at})


def as_parquet(frame: pl.DataFrame) -> bytes:
    target = BytesIO()
    frame.write_parquet(target)
    return target.getvalue()


def test_parquet_in_a_bucket_gives_the_rows_of_the_interval(lake: dict[str, str]) -> None:
    for number, part in enumerate(three_days().iter_slices(36)):
        put(lake, f"orders/{number}.parquet", as_parquet(part))
    frame = read_parquet("s3://lake/orders/", known="at", between=BETWEEN, storage_options=lake).collect()
    assert frame.get_column("id").to_list() == list(range(24, 48))


def test_of_a_folder_in_a_bucket_only_its_parquet_files_are_read_and_partitions_are_columns(
    lake: dict[str, str],
) -> None:
    for shop, part in zip("ns", three_days().iter_slices(36), strict=True):
        put(lake, f"spark/shop={shop}/part-0.parquet", as_parquet(part))
    put(lake, "spark/_SUCCESS", b"")
    put(lake, "spark/.part-0.parquet.crc", b"crc")
    frame = read_parquet("s3://lake/spark/", known="at", between=BETWEEN, storage_options=lake).collect()
    assert frame.get_column("id").to_list() == list(range(24, 48))
    assert frame.get_column("shop").to_list() == ["n"] * 12 + ["s"] * 12


def test_csv_in_a_bucket_gives_the_rows_of_the_interval(lake: dict[str, str]) -> None:
    put(lake, "exports/a.csv", b"id,at\n1,2024-02-29T23:59:59Z\n2,2024-03-01T00:00:00Z\n")
    put(lake, "exports/b.csv", b"id,at\n3,2024-03-01T12:00:00Z\n4,2024-03-02T00:00:00Z\n")
    schema = {"id": pl.Int64(), "at": pl.Datetime("us", "UTC")}
    found = read_csv("s3://lake/exports/*.csv", schema=schema, known="at", between=BETWEEN, storage_options=lake)
    assert found.collect().get_column("id").to_list() == [2, 3]


EXTRACT = """
ORDERS = Contract(columns={{"id": Column(int, max=40), "at": datetime, "known": datetime}}, unique="id", most_bad=0.5)

@extracts(source="orders", contract=ORDERS)
def orders(start, end):
    return read_parquet({path!r}, known="known", between=(start, end), storage_options={lake!r})
"""


def test_an_extraction_from_a_bucket_is_checked_and_lands_once(lake: dict[str, str], project, extraction) -> None:
    put(lake, "checked/all.parquet", as_parquet(three_days()))
    extraction(EXTRACT.format(path="s3://lake/checked/", lake=lake))
    (report,) = extract(project, start=START, end=START + DAY)
    assert (report.rows, report.quarantined, report.reasons) == (17, 7, (("id is more than 40", 7),))
    (again,) = extract(project, start=START, end=START + DAY)
    assert (again.rows, again.skipped) == (0, 1)


def test_a_bucket_that_is_not_there_stops_the_run_with_its_name_and_no_secret(
    lake: dict[str, str], project, extraction
) -> None:
    extraction(EXTRACT.format(path="s3://nowhere/orders/", lake=lake))
    with pytest.raises(SourceError, match="'orders' failed") as caught:
        extract(project, start=START, end=START + DAY)
    assert "hunter2" not in str(caught.value)
    assert not list((project.root / "data").glob("**/*.parquet"))
