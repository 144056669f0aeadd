"""Bad input: a clear error before the work, and nothing harmed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import Workshop, at

from tidemill.definitions.catalog import CodeReference, Feature, OnDemandView, Projection, RequestField
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, SourceError, SpineError
from tidemill.offline.history import History


@pytest.fixture
def simple(workshop: Workshop) -> Workshop:
    return workshop.simple({"id": [1], "event": [at(0)], "x": [10]})


SPINES = {
    "no time column": (pl.DataFrame({"id": [1]}), "no time column"),
    "several time columns": (pl.DataFrame({"id": [1], "a": [at(0)], "b": [at(0)]}), "several time columns: a, b"),
    "null times": (
        pl.DataFrame({"id": [1, 1], "event_timestamp": [at(0), None]}),
        "1 of 2 rows of the spine have no time",
    ),
    "only null times": (pl.DataFrame({"id": [1], "event_timestamp": [None]}), "have no time"),
    "text that is no time": (
        pl.DataFrame({"id": [1], "event_timestamp": ["soon"]}),
        "'soon' is not an ISO 8601 instant",
    ),
    "numbers for times": (pl.DataFrame({"id": [1], "event_timestamp": [1.5]}), "not a time"),
    "text keys": (
        pl.DataFrame({"id": ["a"], "event_timestamp": [at(0)]}),
        "'id' of the spine is String, but the keys .* INT64",
    ),
    "fractions for keys": (pl.DataFrame({"id": [1.5], "event_timestamp": [at(0)]}), "holds fractions"),
    "decimals for keys": (pl.DataFrame({"id": [Decimal(1)], "event_timestamp": [at(0)]}), "'id' of the spine is Dec"),
    "endless keys": (pl.DataFrame({"id": [float("inf")], "event_timestamp": [at(0)]}), "beyond 64 bits"),
    "floats beyond the keys": (pl.DataFrame({"id": [2.0**63], "event_timestamp": [at(0)]}), "beyond 64 bits"),
    "numbers beyond the keys": (
        pl.DataFrame({"id": pl.Series([2**63], dtype=pl.UInt64), "event_timestamp": [at(0)]}),
        "beyond 64 bits",
    ),
    "keys of 128 bits": (
        pl.DataFrame({"id": pl.Series([1], dtype=pl.Int128), "event_timestamp": [at(0)]}),
        "'id' of the spine is Int128",
    ),
    "text among pandas' times": (
        pd.DataFrame({"id": [1, 1], "event_timestamp": pd.Series([at(0), "soon"], dtype=object)}),
        "it holds times, and 'soon'",
    ),
    "pandas with a missing time": (
        pd.DataFrame({"id": [1, 1], "event_timestamp": [pd.Timestamp(at(0)), pd.NaT]}),
        "1 of 2 rows of the spine have no time",
    ),
    "pandas with a missing time among objects": (
        pd.DataFrame({"id": [1, 1], "event_timestamp": pd.Series([at(0), pd.NaT], dtype=object)}),
        "1 of 2 rows of the spine have no time",
    ),
    "text with a missing time": (
        pl.DataFrame({"id": [1, 1], "event_timestamp": ["2024-01-01T00:00:00Z", None]}),
        "1 of 2 rows of the spine have no time",
    ),
    "two columns of one name": (
        pd.concat([pd.DataFrame({"id": [1], "event_timestamp": [at(0)]}), pd.DataFrame({"id": [2]})], axis=1),
        "two columns named 'id'",
    ),
    "a lazy frame over nothing": (pl.scan_parquet("nowhere.parquet"), "lazy frame of the spine cannot be computed"),
    "a missing key": (pl.DataFrame({"ident": [1], "event_timestamp": [at(0)]}), "no column 'id'"),
    "a feature's name": (pl.DataFrame({"id": [1], "event_timestamp": [at(0)], "x": [1]}), "already has a column 'x'"),
    "no frame": (17, "cannot be a int"),
    "a path that is not there": ("nowhere.parquet", "There is no spine"),
    "SQL over an unknown table": ("SELECT * FROM nowhere", "Its tables are the project's sources: s"),
}


@pytest.mark.parametrize("case", SPINES)
def test_a_spine_that_cannot_be_used_is_refused_before_the_work(simple: Workshop, case: str):
    spine, message = SPINES[case]
    with pytest.raises(SpineError, match=message):
        simple.store.training_set("v:x", spine)


def test_an_unknown_time_column_is_refused(simple: Workshop):
    with pytest.raises(SpineError, match="no column 'when'"):
        simple.collect("v:x", pl.DataFrame({"id": [1], "t": [at(0)]}), time_column="when")


def test_a_reference_without_a_feature_is_refused(simple: Workshop):
    with pytest.raises(DefinitionError, match="view:feature"):
        simple.collect(["v:"], pl.DataFrame({"id": [1], "event_timestamp": [at(0)]}))


def spine() -> pl.DataFrame:
    return pl.DataFrame({"id": [1], "event_timestamp": [at(1)]})


def test_a_missing_source_is_named_with_where_it_was_looked_for(workshop: Workshop):
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64})
    with pytest.raises(SourceError, match=r"'s' is not there: .*s\.parquet"):
        workshop.store.training_set("v:x", spine())


def test_a_corrupt_file_is_named(simple: Workshop):
    file = simple.root / "s.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        simple.store.training_set("v:x", spine())


def test_a_file_whose_pages_are_damaged_is_named_when_they_are_read(workshop: Workshop):
    workshop.simple({"id": list(range(5000)), "event": [at(0)] * 5000, "x": list(range(5000))})
    file = workshop.root / "s.parquet"
    raw = bytearray(file.read_bytes())
    raw[4:2000] = b"\xff" * 1996
    file.write_bytes(bytes(raw))
    with pytest.raises(SourceError, match=r"s\.parquet of source 's' cannot be read"):
        workshop.collect("v:x", spine())


@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
def test_a_file_that_is_replaced_while_it_is_read_is_not_mixed_with_its_successor(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, compression: str
):
    rows = pl.DataFrame({"id": [1, 2], "event": [at(0), at(0)], "x": [10, 20]})
    workshop.simple(rows)
    file = workshop.root / "s.parquet"
    rows.write_parquet(file, compression=compression)
    gather = History.gather

    def replaced(history: History, *asked: Any, **how: Any) -> pl.DataFrame:
        rows.reverse().write_parquet(workshop.root / "fresh", compression=compression)
        (workshop.root / "fresh").rename(file)
        return gather(history, *asked, **how)

    monkeypatch.setattr(History, "gather", replaced)
    with pytest.raises(SourceError, match=r"s\.parquet of source 's' was replaced or taken away"):
        workshop.collect("v:x", spine())
    monkeypatch.undo()
    assert workshop.collect("v:x", spine())["x"].to_list() == [10]


def test_a_file_with_two_columns_of_one_name_is_refused_before_the_work(workshop: Workshop):
    columns = [pa.array([1]), pa.array([at(0)]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, names=["id", "event", "x", "x"]), workshop.root / "s.parquet")
    workshop.view("v", workshop.source("s"), {"x": ValueType.INT64})
    with pytest.raises(SourceError, match="several columns named 'x'"):
        workshop.store.training_set("v:x", spine())


def test_a_decimal_with_a_fraction_is_no_whole_number(workshop: Workshop):
    workshop.simple(pl.DataFrame({"id": [1], "event": [at(0)], "x": [Decimal("1.25")]}))
    with pytest.raises(SourceError, match="holds fractions"):
        workshop.collect("v:x", spine())


def two_files(workshop: Workshop, second: dict) -> None:
    folder = workshop.root / "s"
    folder.mkdir()
    pl.DataFrame({"id": [1], "event": [at(0)], "x": [10]}).write_parquet(folder / "a.parquet")
    pl.DataFrame(second).write_parquet(folder / "b.parquet")
    workshop.view("v", workshop.source("s", path="s"), {"x": ValueType.INT64})


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": [1], "event": [at(0)]}, r"b\.parquet of source 's' has no column 'x'"),
        ({"id": [1], "event": [at(0)], "x": ["ten"]}, r"'x' of source 's' is int64 in a\.parquet but .*string.* in b"),
        ({"id": ["1"], "event": [at(0)], "x": [1]}, "'id' of source 's' is int64"),
        ({"id": [1], "event": ["2024"], "x": [1]}, "'event' of source 's' is timestamp"),
    ],
)
def test_files_of_one_source_that_disagree_are_refused_before_the_work(workshop: Workshop, second: dict, message: str):
    two_files(workshop, second)
    with pytest.raises(SourceError, match=message):
        workshop.store.training_set("v:x", spine())


def test_a_time_column_that_holds_no_times_is_refused(workshop: Workshop):
    workshop.simple({"id": [1], "event": [5], "x": [10]})
    with pytest.raises(SourceError, match="'event' of source 's' is number"):
        workshop.store.training_set("v:x", spine())


def test_keys_of_another_type_in_the_source_are_refused(workshop: Workshop):
    workshop.simple({"id": ["a"], "event": [at(0)], "x": [10]})
    with pytest.raises(SourceError, match="keys are whole numbers"):
        workshop.collect("v:x", spine())


def test_values_that_are_not_of_the_declared_type_are_refused(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [1.5]})
    with pytest.raises(SourceError, match="holds fractions"):
        workshop.collect("v:x", spine())


def test_a_request_column_of_an_on_demand_view_that_is_missing_is_refused(simple: Workshop):
    simple.on_demand.append(
        OnDemandView(
            name="asked",
            features=(Feature(name="double", dtype=ValueType.INT64),),
            function=CodeReference(module="f", qualname="double", digest=""),
            mode="python",
            request=(RequestField(name="amount", dtype=ValueType.INT64),),
        )
    )
    with pytest.raises(SpineError, match="'amount'"):
        simple.store.training_set(["asked:double"], spine())


def on_demand(simple: Workshop) -> None:
    """An on-demand view `asked` over `v:x` and the request's amount."""
    from tidemill.definitions.catalog import OnDemandInput
    from tidemill.definitions.code import reference_to

    file = simple.root / "shaping.py"
    file.write_text(
        "def total(inputs):\n    return {'total': [(x or 0) + a for x, a in zip(inputs['x'], inputs['amount'])]}\n"
    )
    names: dict = {}
    exec(compile(file.read_text(), str(file), "exec"), names)  # noqa: S102 - as an import would
    simple.on_demand.append(
        OnDemandView(
            name="asked",
            features=(Feature(name="total", dtype=ValueType.INT64),),
            function=reference_to(names["total"], simple.root),
            mode="python",
            inputs=(OnDemandInput(view="v", feature="x"),),
            request=(RequestField(name="amount", dtype=ValueType.INT64),),
        )
    )


def test_on_demand_features_come_from_features_and_request_columns(simple: Workshop):
    on_demand(simple)
    asked = pl.DataFrame({"id": [1, 2], "event_timestamp": [at(1)] * 2, "amount": [5, 6]})
    found = simple.collect(["asked:total"], asked)
    assert found.columns == ["id", "event_timestamp", "amount", "total"]
    assert found["total"].to_list() == [15, 6]
    nobody = simple.collect(["asked:total"], asked.clear())
    assert (nobody.height, nobody.schema["total"]) == (0, pl.Int64)


def test_views_and_on_demand_views_may_have_aliases(simple: Workshop):
    on_demand(simple)
    simple.service(
        "named",
        Projection(view="asked", features=("total",), alias="bill"),
        Projection(view="v", features=("x",), alias="base"),
    )
    asked = pl.DataFrame({"id": [1], "event_timestamp": [at(1)], "amount": [5]})
    assert simple.collect("named", asked, full_feature_names=True).select("bill__total", "base__x").rows() == [(15, 10)]
    assert simple.collect("named", asked).select("total", "x").rows() == [(15, 10)]


def test_nothing_of_the_project_changes_when_a_retrieval_fails(simple: Workshop):
    before = {path: path.stat().st_mtime_ns for path in Path(simple.root).rglob("*")}
    with pytest.raises(SpineError):
        simple.collect("v:x", pl.DataFrame({"id": [1]}))
    assert {path: path.stat().st_mtime_ns for path in Path(simple.root).rglob("*")} == before


def test_a_ttl_beyond_all_times_is_no_trouble(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, ttl=timedelta(days=900_000))
    assert workshop.collect("v:x", spine())["x"].to_list() == [10]
