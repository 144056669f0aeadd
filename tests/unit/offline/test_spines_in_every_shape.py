"""Whatever a spine is handed over as, and however its keys and features are named."""

from __future__ import annotations

import pandas as pd
import polars as pl
import pytest
from workshop import Workshop, ask, at

from tidemill.definitions.catalog import Projection
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, NotDefinedError


def test_a_spine_may_be_polars_pandas_arrow_a_path_or_sql(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    spine = ask((2, at(1)), (1, at(1)))
    spine.write_parquet(workshop.root / "spine.parquet")
    sql = "SELECT id, event AS event_timestamp FROM s ORDER BY id DESC"
    shapes = [
        spine,
        spine.lazy(),
        spine.to_pandas(),
        spine.to_arrow(),
        "spine.parquet",
        workshop.root / "spine.parquet",
        sql,
    ]
    for shape in shapes:
        assert workshop.collect("v:x", shape)["x"].to_list() == [20, 10], type(shape)


@pytest.mark.parametrize("text", ["(SELECT id, event FROM s)", "-- who\n/* and when */ select id, event from s"])
def test_sql_may_begin_with_comments_and_parentheses(workshop: Workshop, text: str):
    workshop.simple({"id": [1], "event": [at(0)], "x": [7]})
    assert workshop.collect("v:x", text)["x"].to_list() == [7]


def test_pandas_keys_with_a_missing_one_are_floats_and_still_match(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    spine = pd.DataFrame({"id": [2, None, 1], "event_timestamp": [at(1)] * 3})
    assert workshop.collect("v:x", spine)["x"].to_list() == [20, None, 10]


def test_spine_columns_come_back_untouched(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    spine = pl.DataFrame(
        {
            "id": pl.Series([1], dtype=pl.Int16),
            "event_timestamp": pl.Series([at(1)]).dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms"),
            "tags": [["a", None]],
            "kind": pl.Series(["k"], dtype=pl.Categorical),
            "nothing": [None],
        }
    )
    assert workshop.collect("v:x", spine).select(spine.columns).equals(spine, null_equal=True)
    assert workshop.collect("v:x", spine).select(spine.columns).schema == spine.schema


def test_one_view_may_be_asked_twice_by_different_keys(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, 20]})
    workshop.service(
        "both",
        Projection(view="v", features=("x",), alias="from", join_key_map=(("id", "origin"),)),
        Projection(view="v", features=("x",), alias="to", join_key_map=(("id", "destination"),)),
    )
    spine = pl.DataFrame({"origin": [1, 2], "destination": [2, 1], "event_timestamp": [at(1)] * 2})
    found = workshop.collect("both", spine, full_feature_names=True)
    assert found.select("from__x", "to__x").rows() == [(10, 20), (20, 10)]
    with pytest.raises(DefinitionError, match="full_feature_names"):
        workshop.collect("both", spine)


def test_join_keys_may_be_swapped_by_a_map(workshop: Workshop):
    rows = {"a": [1, 2], "b": [2, 1], "event": [at(0)] * 2, "x": [12, 21]}
    workshop.view(
        "v", workshop.source("s", rows), {"x": ValueType.INT64}, keys={"a": ValueType.INT64, "b": ValueType.INT64}
    )
    workshop.service("swapped", Projection(view="v", features=("x",), join_key_map=(("a", "b"), ("b", "a"))))
    spine = pl.DataFrame({"a": [1], "b": [2], "event_timestamp": [at(1)]})
    assert workshop.collect("v:x", spine)["x"].to_list() == [12]
    assert workshop.collect("swapped", spine)["x"].to_list() == [21]


def test_a_misspelt_feature_is_answered_with_the_likely_one(workshop: Workshop):
    workshop.view(
        "weather", workshop.source("s", {"id": [1], "event": [at(0)], "wind": [1]}), {"wind": ValueType.INT64}
    )
    spine = ask((1, at(1)))
    with pytest.raises(NotDefinedError, match="Did you mean 'wind'"):
        workshop.collect("weather:wnd", spine)
    with pytest.raises(NotDefinedError, match="Did you mean 'weather'"):
        workshop.collect("wether:wind", spine)
