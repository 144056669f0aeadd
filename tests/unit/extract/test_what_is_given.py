"""What an extraction may give: one frame or many, of any kind, or nothing; and what is refused with its reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tidemill.errors import DefinitionError, SourceError, UnavailableError
from tidemill.extract import Column, Contract, extract
from tidemill.extract.validation import conform

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)

HEAD = """
    import sys
    import pandas as pd
    import pyarrow as pa

    CONTRACT = Contract(columns={"id": Column(int, nullable=False), "name": str, "at": datetime, "known": datetime})

    def page(ids, names=None):
        names = [None] * len(ids) if names is None else names
        return pl.DataFrame({"id": ids, "name": names, "at": [START] * len(ids), "known": [START] * len(ids)})

    def orders(start, end):
        global START
        START = start
        return given(start, end)

    ORDERS = extracts(source="orders", contract=CONTRACT)(orders)
"""
WITHOUT_CONTRACT = HEAD.replace("contract=CONTRACT", "contract=None")


def given(*lines: str) -> str:
    return "\n    def given(start, end):\n" + "\n".join(f"        {line}" for line in lines) + "\n"


def run(project, days: int = 1) -> int:
    (report,) = extract(project, start=START + (days - 1) * DAY, end=START + days * DAY)
    return report.rows


def landed(project) -> pl.DataFrame:
    return pl.read_parquet(project.root / "data" / "orders").sort("id")


@pytest.mark.parametrize(
    "lines",
    [
        ["yield page([1])", "yield page([2, 3], ['a', None])"],
        ["yield page([1]).lazy()", "yield page([]).to_pandas()", "yield page([2, 3], ['a', None]).to_arrow()"],
        ["return [page([1]), page([2, 3], ['a', None]).select('known', 'name', 'at', 'id')]"],
        ["yield from page([1, 2, 3], [None, 'a', None]).iter_rows(named=True)"],
        ["table = page([1, 2, 3], [None, 'a', None]).to_arrow()", "return table.to_reader()"],
        ["yield page([1])", "yield pl.DataFrame()", "yield page([2, 3], pl.Series(['a', None], dtype=pl.Categorical))"],
    ],
)
@pytest.mark.parametrize("head", [HEAD, WITHOUT_CONTRACT])
def test_frames_that_are_yielded_land_as_one(project, extraction, head, lines):
    if "Categorical" in lines[-1] and head is WITHOUT_CONTRACT:
        lines = [*lines[:-1], "yield page([2, 3], ['a', None])"]
    extraction(head + given(*lines))
    assert run(project) == 3
    assert landed(project).select("id", "name").rows() == [(1, None), (2, "a"), (3, None)]
    assert len(list((project.root / "data" / "orders").iterdir())) == 1


def test_of_pages_that_fail_half_way_nothing_lands(project, extraction):
    extraction(HEAD + given("yield page([1])", "raise ConnectionError('page 2 of 9')"))
    with pytest.raises(SourceError, match=r"'orders' failed .* ConnectionError: page 2 of 9"):
        run(project)
    assert not list(project.root.glob("**/*.parquet"))


@pytest.mark.parametrize("nothing", ["return []", "yield from ()", "return pl.DataFrame()", "return pd.DataFrame([])"])
def test_an_interval_in_which_nothing_came_lands_empty_in_the_contracts_types(project, extraction, nothing):
    extraction(HEAD + given(nothing))
    assert run(project) == 0
    instant = pl.Datetime("us", "UTC")
    assert dict(landed(project).schema) == {"id": pl.Int64, "name": pl.String, "at": instant, "known": instant}


@pytest.mark.parametrize("nothing", ["return []", "return pl.DataFrame(schema=['id', 'name', 'at', 'known'])"])
def test_without_a_contract_an_empty_interval_has_the_types_of_what_landed_before(project, extraction, nothing):
    extraction(WITHOUT_CONTRACT + given(nothing))
    with pytest.raises(SourceError, match="contract"):
        run(project)
    extraction(WITHOUT_CONTRACT + given("return page([1], ['a'])"))
    assert run(project) == 1
    extraction(WITHOUT_CONTRACT + given(nothing))
    assert run(project, days=2) == 0
    assert landed(project).rows() == [(1, "a", START, START)]


def test_a_column_that_has_no_value_yet_may_get_one_of_any_type_and_then_keeps_it(project, extraction):
    extraction(WITHOUT_CONTRACT + given("return page([1])"))
    run(project)
    extraction(WITHOUT_CONTRACT + given("return page([2], ['a'])"))
    run(project, days=2)
    extraction(WITHOUT_CONTRACT + given("return page([3])"))
    run(project, days=3)
    read = project.offline.scan("orders").collect().sort("id")
    assert read.get_column("name").to_list() == [None, "a", None]
    extraction(WITHOUT_CONTRACT + given("return page([4], [4])"))
    with pytest.raises(SourceError, match=r"holds .*name: String.* but .*name: Int64.* was to be added"):
        run(project, days=4)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["page([1])"], "returned None"),
        (["return 5"], r"is no table\. A int cannot be read as rows"),
        (["yield page([1])", "yield {'id': 2}"], "is no table"),
        (["yield page([1])", "yield page([2]).drop('name')"], "columns name|lacks the columns name"),
        (["return page([1]).with_columns(__reason=pl.lit('mine'))"], "has a column '__reason'"),
        (["return page([1]).with_columns(o=pl.Series([object()]))"], "The columns o .* hold Python objects"),
        (["return page([1]).with_columns(s=pl.Series([{}]))"], "cannot be written as Parquet, of .*s: Struct"),
        (["sys.exit(3)"], "SystemExit: 3"),
        (["raise pl.exceptions.PanicException('at an index')"], "PanicException: at an index"),
    ],
)
@pytest.mark.parametrize("head", [HEAD, WITHOUT_CONTRACT])
def test_what_is_no_table_stops_the_run_with_the_reason_and_lands_nothing(project, extraction, head, lines, message):
    extraction(head + given(*lines))
    with pytest.raises(SourceError, match=message):
        run(project)
    assert not list(project.root.glob("**/*.parquet*"))


def test_pages_without_a_contract_have_the_same_types(project, extraction):
    extraction(WITHOUT_CONTRACT + given("yield page([1])", "yield page([2.5])"))
    with pytest.raises(SourceError, match="'id' extracted for 'orders' is Int64 in one frame and Float64 in another"):
        run(project)
    extraction(HEAD + given("yield page([1])", "yield page([2.0])"))
    assert run(project) == 2


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (pl.Series("x", [1.0, None, -(2.0**53)]), pl.Int64()),  # as pandas has whole numbers, some of them missing
        (pl.Series("x", ["a", None], dtype=pl.Categorical), pl.String()),
        (pl.Series("x", ["a", None], dtype=pl.Enum(["a"])), pl.String()),
        (pl.Series("x", [START.date(), None]), pl.Datetime("us", "UTC")),
    ],
)
def test_other_forms_of_the_same_values_are_brought_to_the_declared_type(values, declared):
    found = conform(values.to_frame(), Contract(columns={"x": Column(declared)}), "orders").get_column("x")
    assert found.dtype == declared
    assert found.null_count() == 1
    assert found[0] in (1, "a", START)


@pytest.mark.parametrize("value", [0.5, 2.0**53 + 2, float("nan"), float("inf")])
def test_fractions_that_are_no_certain_whole_numbers_are_refused(value):
    with pytest.raises(SourceError, match="'x' extracted for 'orders' is Float64"):
        conform(pl.DataFrame({"x": [value]}), Contract(columns={"x": Column(int)}), "orders")


def test_a_file_in_the_folder_that_is_no_parquet_is_named(project, extraction):
    (project.root / "data" / "orders").mkdir(parents=True)
    (project.root / "data" / "orders" / "half.parquet").write_bytes(b"PAR1")
    extraction(HEAD + given("return page([1])"))
    with pytest.raises(SourceError, match=r"half\.parquet is no Parquet file"):
        run(project)


def test_a_state_folder_that_cannot_be_written_is_named(project, extraction):
    (project.state / "locks").write_text("a file where a folder should be")
    extraction(HEAD + given("return page([1])"))
    with pytest.raises(UnavailableError, match=r"locks/extract-orders\.lock could not be opened"):
        run(project)


def test_an_asynchronous_function_is_refused_where_it_is_declared(project, extraction):
    extraction('@extracts(source="orders")\nasync def orders(start, end):\n    return None')
    with pytest.raises(DefinitionError, match="'orders' is asynchronous"):
        run(project)
