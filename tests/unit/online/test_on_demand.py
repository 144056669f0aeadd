from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tidemill.definitions import Catalog, Feature, OnDemandInput, OnDemandView, RequestField, ValueType, View
from tidemill.definitions.catalog import CodeReference
from tidemill.definitions.function_text import function_digest
from tidemill.definitions.on_demand import evaluate, gather_inputs, input_types
from tidemill.errors import DefinitionError, InputError

MODULE = """
def double(inputs):
    xs = inputs["x"]
    return {"twice": [None if x is None else 2 * x for x in xs], "half": [None if x is None else x / 2 for x in xs]}

def with_pandas(frame):
    frame["twice"] = frame["x"] * 2
    frame["half"] = frame["x"] / 2
    return frame

def sizes(inputs):
    found = [0 if x is None else len(x | set()) for x in inputs["x"]]
    return {"twice": found, "half": [0.0 for _ in found]}

def sizes_of_frame(frame):
    return frame.assign(twice=[0 if x is None else len(x | set()) for x in frame["x"]], half=0.0)

def lengths(frame):
    return frame.assign(twice=0, half=frame["x"].str.len())

def hours(frame):
    return frame.assign(twice=0, half=frame["x"].dt.hour)

def objects(frame):
    return frame.assign(twice=0, half=frame["x"].astype(object))

def negated(frame):
    return frame.assign(twice=0, half=(frame["x"] != True).astype(float))

def tenth(inputs):
    return {"twice": inputs["x"], "half": [x / 10 for x in inputs["x"]]}

def short(inputs):
    return {"twice": [1], "half": [1.0]}

def forgetful(inputs):
    return {"twice": inputs["x"]}

def texts(inputs):
    return {"twice": ["a" for _ in inputs["x"]], "half": inputs["x"]}

def broken(inputs):
    raise KeyError("y")

def as_given(inputs):
    return {"twice": [0 for _ in inputs["x"]], "half": inputs["x"]}

def fractions(inputs):
    return {"twice": [0.5 for _ in inputs["x"]], "half": inputs["x"]}
"""


@pytest.fixture
def view(tmp_path: Path):
    (tmp_path / "functions.py").write_text(MODULE)

    def make(function: str, *, mode: str = "python", half: ValueType = ValueType.DOUBLE) -> OnDemandView:
        return OnDemandView(
            name="computed",
            features=(Feature(name="twice", dtype=ValueType.INT64), Feature(name="half", dtype=half)),
            function=CodeReference(
                module="functions",
                qualname=function,
                digest=function_digest(tmp_path / "functions.py", function, tmp_path),
            ),
            mode=mode,
            inputs=(OnDemandInput(view="weather", feature="x"),),
            request=(RequestField(name="hour", dtype=ValueType.INT64),),
        )

    return make


def test_a_batch_is_evaluated_in_one_call(view, tmp_path: Path):
    assert evaluate(view("double"), tmp_path, {"x": [1, 2, None]}) == {"twice": [2, 4, None], "half": [0.5, 1.0, None]}


def test_a_pandas_function_gives_the_declared_types_with_missing_values(view, tmp_path: Path):
    found = evaluate(view("with_pandas", mode="pandas"), tmp_path, {"x": [1, 2, None]})
    assert found["twice"] == [2, 4, None]
    assert [type(value) for value in found["twice"]] == [int, int, type(None)]


@pytest.mark.parametrize(
    ("function", "dtype", "values", "expected"),
    [
        ("with_pandas", ValueType.DOUBLE, [1.5, None], [0.75, None]),
        ("with_pandas", ValueType.INT64, [3, None], [1.5, None]),
        ("lengths", ValueType.STRING, ["abc", None], [3.0, None]),
        ("hours", ValueType.UNIX_TIMESTAMP, [datetime(2013, 1, 1, 6, tzinfo=UTC), None], [6.0, None]),
        ("objects", ValueType.DOUBLE, [1.5, None], [1.5, None]),
        ("negated", ValueType.BOOL, [True, None], [0.0, 1.0]),
    ],
)
def test_a_row_with_a_null_is_computed_by_pandas_as_it_is_among_others(
    view, tmp_path: Path, function: str, dtype: ValueType, values: list[Any], expected: list[Any]
):
    """Where a float is declared, what is missing is NaN: a float column of pandas cannot tell the two apart."""
    computed, types = view(function, mode="pandas"), {"x": dtype}
    together = evaluate(computed, tmp_path, {"x": values}, types)["half"]
    alone = [evaluate(computed, tmp_path, {"x": [value]}, types)["half"][0] for value in values]
    assert str(alone) == str(together) == str([float("nan") if value is None else value for value in expected])


@pytest.mark.parametrize("given", [[{2, 1}, None, set()], [[1, 2, 1], None, []]])
@pytest.mark.parametrize(("function", "mode"), [("sizes", "python"), ("sizes_of_frame", "pandas")])
def test_a_set_is_a_set_to_the_function_though_history_holds_a_list(
    view, tmp_path: Path, function: str, mode: str, given: list[Any]
):
    found = evaluate(view(function, mode=mode), tmp_path, {"x": given}, {"x": ValueType.INT64_SET})
    assert found["twice"] == [2, 0, 0]


def test_what_inputs_are_declared_as_is_known_under_both_of_their_names(view):
    weather = View(
        name="weather", entities=(), join_keys=(), features=(Feature(name="x", dtype=ValueType.FLOAT),), source="s"
    )
    types = input_types(Catalog(project="p", views=(weather,)), view("double"))
    assert types == {"x": ValueType.FLOAT, "weather__x": ValueType.FLOAT, "hour": ValueType.INT64}


def test_a_float_is_rounded_to_the_width_it_is_declared_with(view, tmp_path: Path):
    found = evaluate(view("tenth", half=ValueType.FLOAT), tmp_path, {"x": [1]})
    assert found["half"] == [0.10000000149011612]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("short", "1 values for 2 rows"),
        ("forgetful", "did not return its feature 'half'"),
        ("texts", "declared INT64"),
        ("broken", "failed on a batch of 2 rows: KeyError"),
        ("fractions", "not a whole number"),
    ],
)
def test_a_function_that_breaks_its_declaration_is_named_with_the_reason(view, tmp_path: Path, function, message):
    with pytest.raises(DefinitionError, match=message):
        evaluate(view(function), tmp_path, {"x": [1, 2]})


def test_inputs_come_under_both_of_feast_s_names(view):
    inputs = gather_inputs(view("double"), {("weather", "x"): [1]}, {"hour": [7]})
    assert inputs == {"x": [1], "weather__x": [1], "hour": [7]}


def test_a_missing_request_field_is_asked_for(view):
    with pytest.raises(InputError, match="needs the request field 'hour'"):
        gather_inputs(view("double"), {("weather", "x"): [1]}, {})


def test_an_empty_batch_gives_empty_columns(view, tmp_path: Path):
    assert evaluate(view("double"), tmp_path, {"x": []}) == {"twice": [], "half": []}


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (ValueType.INT64, 2**63),
        (ValueType.INT64, -(2**63) - 1),
        (ValueType.DOUBLE, {"a": 1}),
        (ValueType.DOUBLE, [1.0]),
        (ValueType.INT64_LIST, [1.5]),
        (ValueType.UNIX_TIMESTAMP, 2**60),
    ],
)
def test_what_would_become_another_value_is_refused(view, tmp_path: Path, dtype: ValueType, given: Any):
    with pytest.raises(DefinitionError, match=f"computed:half is declared {dtype.name}, but its values are not"):
        evaluate(view("as_given", half=dtype), tmp_path, {"x": [given]})


def test_whole_numbers_that_are_declared_as_times_are_seconds(view, tmp_path: Path):
    found = evaluate(view("as_given", half=ValueType.UNIX_TIMESTAMP), tmp_path, {"x": [60, None]})
    assert found["half"] == [datetime(1970, 1, 1, 0, 1, tzinfo=UTC), None]


def test_the_widest_whole_numbers_are_kept(view, tmp_path: Path):
    widest = [2**63 - 1, -(2**63), None]
    assert evaluate(view("as_given", half=ValueType.INT64), tmp_path, {"x": widest})["half"] == widest


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        (ValueType.DOUBLE, [0, None, 1.5, True], [0.0, None, 1.5, 1.0]),
        (ValueType.FLOAT, [1, 0.5, np.float32(0.1)], [1.0, 0.5, 0.10000000149011612]),
        (ValueType.INT64, [1, 2.0, np.int16(3), float("nan"), pd.NA], [1, 2, 3, None, None]),
        (ValueType.BOOL, [True, np.bool_(False), None], [True, False, None]),
        (ValueType.BYTES, [b"a", bytearray(b"b")], [b"a", b"b"]),
        (ValueType.DOUBLE_LIST, [[1], [2.5], [], None, [0, 0.5]], [[1.0], [2.5], [], None, [0.0, 0.5]]),
        (ValueType.INT64_LIST, [[], np.array([1, 2]), (3,), [2.0]], [[], [1, 2], [3], [2]]),
        (ValueType.STRING_LIST, [["a", None], np.array(["b"])], [["a", None], ["b"]]),
        (ValueType.INT64_SET, [{2, 1}, frozenset({3})], [[1, 2], [3]]),
        (ValueType.UNIX_TIMESTAMP, [60, datetime(1970, 1, 1, 0, 2, tzinfo=UTC), pd.NaT],
         [datetime(1970, 1, 1, 0, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 2, tzinfo=UTC), None]),
        (ValueType.UNIX_TIMESTAMP_LIST, [[60], [datetime(1970, 1, 1, 0, 2, tzinfo=UTC)]],
         [[datetime(1970, 1, 1, 0, 1, tzinfo=UTC)], [datetime(1970, 1, 1, 0, 2, tzinfo=UTC)]]),
    ],
)  # fmt: skip
def test_what_a_value_becomes_does_not_depend_on_those_it_came_with(
    view, tmp_path: Path, dtype: ValueType, given: list[Any], expected: list[Any]
):
    """The rows of a training set come together, that of a request comes alone."""
    computed = view("as_given", half=dtype)
    for order in (slice(None), slice(None, None, -1)):
        assert evaluate(computed, tmp_path, {"x": given[order]})["half"] == expected[order]
    assert [evaluate(computed, tmp_path, {"x": [one]})["half"][0] for one in given] == expected


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (ValueType.DOUBLE_LIST, [[1.0], "1"]),
        (ValueType.DOUBLE_LIST, [[1.0], 2.0]),
        (ValueType.INT64_LIST, [[1], [0.5]]),
        (ValueType.INT64, [1, 0.5]),
        (ValueType.DOUBLE, [1.0, "fast"]),
        (ValueType.DOUBLE, [1.0, [2.0]]),
    ],
)
def test_one_value_of_another_type_is_refused_wherever_it_stands(
    view, tmp_path: Path, dtype: ValueType, given: list[Any]
):
    for order in (slice(None), slice(None, None, -1)):
        with pytest.raises(DefinitionError, match=f"computed:half is declared {dtype.name}, but its values are not"):
            evaluate(view("as_given", half=dtype), tmp_path, {"x": given[order]})
