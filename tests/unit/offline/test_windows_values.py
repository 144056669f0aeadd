"""What windows make of values through a training set: what cannot be aggregated is refused, and no number wraps."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from windowed_views import F, asked, window, windowed
from workshop import Workshop, at

from tidemill.clock import to_micros
from tidemill.definitions.types import ValueType
from tidemill.errors import InputError, SourceError

# What a value is


def test_a_nan_in_a_window_is_a_value_and_a_null_is_none(workshop: Workshop):
    source = workshop.source("s", {"id": [1, 1, 2], "event": [at(0)] * 3, "x": [1.0, float("nan"), None]})
    windowed(workshop, source, F.SUM, F.COUNT)
    found = workshop.collect(["v:sum", "v:count"], asked((1, 1), (2, 1)))
    assert math.isnan(found["sum"][0])
    assert found.select("sum", "count").rows()[1] == (None, 0)
    assert found["count"].to_list() == [2, 0]


def test_variances_of_very_late_events_count_only_what_was_known(workshop: Workshop):
    """An event may be learned of years after it happened, and before it happens."""
    happened = [at(0), at(0.5), at(1), at(1)]
    learned = [at(0), at(24 * 900), at(-24 * 900), at(1.5)]
    source = workshop.source("s", {"id": [1] * 4, "event": happened, "known": learned, "x": [1.0, 2.0, 4.0, 9.0]})
    windowed(workshop, source, F.VAR, F.COUNT)
    found = workshop.collect(["v:var", "v:count"], asked((1, 1), (1, 2)))
    assert found.select("var", "count").rows() == [(4.5, 2), (pytest.approx(49 / 3), 3)]
    everything = workshop.collect(["v:var", "v:count"], asked((1, 2)), filter_known=False)
    assert everything.select("var", "count").rows() == [(pytest.approx(38 / 3), 4)]


def test_text_can_be_counted(workshop: Workshop):
    source = workshop.source("s", {"id": [1] * 3, "event": [at(0)] * 3, "x": ["a", "a", "b"]})
    windowed(workshop, source, F.COUNT, F.COUNT_DISTINCT)
    found = workshop.collect(["v:count", "v:count_distinct"], asked((1, 1)))
    assert found.select("count", "count_distinct").rows() == [(3, 2)]


# Bad input


@pytest.mark.parametrize("function", [F.SUM, F.MEAN, F.MIN, F.STD, F.FIRST])
def test_a_number_of_text_is_refused_before_the_work(workshop: Workshop, function: F):
    windowed(workshop, workshop.source("s", {"id": [1], "event": [at(0)], "x": ["a"]}), function)
    with pytest.raises(SourceError, match=f"'x' of source 's' is .*string, and '{function}' of view 'v' takes its"):
        workshop.store.training_set(f"v:{function}", asked((1, 1)))


@pytest.mark.parametrize("function", [F.COUNT, F.COUNT_DISTINCT])
def test_lists_are_counted_but_not_told_apart(workshop: Workshop, function: F):
    windowed(workshop, workshop.source("s", {"id": [1], "event": [at(0)], "x": [[1]]}), function)
    if function is F.COUNT:
        assert workshop.collect("v:count", asked((1, 1)))["count"].to_list() == [1]
        return
    with pytest.raises(SourceError, match=r"list<.*and 'count_distinct' .* of lists and structs only count"):
        workshop.store.training_set("v:count_distinct", asked((1, 1)))


def test_a_damaged_file_of_events_is_named(workshop: Workshop):
    rows = {"id": list(range(5000)), "event": [at(0)] * 5000, "x": [float(row) for row in range(5000)]}
    windowed(workshop, workshop.source("s", rows), F.SUM)
    file = workshop.root / "s.parquet"
    raw = bytearray(file.read_bytes())
    raw[4:2000] = b"\xff" * 1996
    file.write_bytes(bytes(raw))
    with pytest.raises(SourceError, match=r"s\.parquet of source 's' cannot be read"):
        workshop.collect("v:sum", asked((1, 1)))
    with pytest.raises(SourceError, match=r"s\.parquet of source 's' cannot be read"):
        workshop.store.training_set("v:sum", asked((1, 1))).sink(workshop.root / "out")
    assert [path.name for path in workshop.root.iterdir()] == ["s.parquet"]


# Numbers that do not fit


@pytest.mark.parametrize(
    ("function", "dtype", "values", "message"),
    [
        (F.SUM, ValueType.INT64, [2**62, 2**62], "adds up column 'x' to more than 64 bits hold.*Declare the sum"),
        (F.SUM, ValueType.INT64, [-(2**63), -1], "adds up column 'x' to more than 64 bits hold"),
        (F.SUM, ValueType.INT32, [2**31 - 1, 1], "'wide' is 2147483648 for a row, but is declared INT32"),
        (F.MAX, ValueType.INT32, [2**40, 1], "'wide' is 1099511627776 for a row, but is declared INT32"),
    ],
)
def test_a_whole_number_that_does_not_fit_is_refused_and_never_wrapped(
    workshop: Workshop, function: F, dtype: ValueType, values: list[int], message: str
):
    source = workshop.source("s", {"id": [1, 1], "event": [at(0), at(0)], "x": values})
    workshop.view("v", source, {"wide": dtype}, aggregations=(window("wide", function),))
    with pytest.raises(InputError, match=message):
        workshop.collect("v:wide", asked((1, 1)))
    now = np.array([to_micros(at(1))])
    assert workshop.store.values_at("v", pl.DataFrame({"id": [1]}), now, now)["wide"].to_list() == [None]


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([2**62, 2**62 - 1], 2**63 - 1),
        ([-(2**62), -(2**62), 1], -(2**63) + 1),
        ([2**63 - 1, -(2**63 - 1), 2**63 - 1, -5], 2**63 - 6),
    ],
)
def test_whole_numbers_up_to_the_last_are_added_exactly(workshop: Workshop, values: list[int], total: int):
    source = workshop.source("s", {"id": [1] * len(values), "event": [at(0)] * len(values), "x": values})
    parts = (window("total", F.SUM), window("top", F.MAX, hours=2), window("mean", F.MEAN))
    types = {"total": ValueType.INT64, "top": ValueType.INT64, "mean": ValueType.DOUBLE}
    workshop.view("v", source, types, aggregations=parts)
    found = workshop.collect(["v:total", "v:top", "v:mean"], asked((1, 1))).select("total", "top", "mean").row(0)
    assert found == (total, max(values), pytest.approx(total / len(values)))


def test_only_the_rows_whose_sum_does_not_fit_are_null_where_nothing_is_refused(workshop: Workshop):
    rows = {"id": [1, 1, 2], "event": [at(0), at(2), at(0)], "x": [2**62, 2**62, 7]}
    parts = (window("total", F.SUM, hours=5), window("mean", F.MEAN, hours=5), window("n", F.COUNT, hours=5))
    types = {"total": ValueType.INT64, "mean": ValueType.DOUBLE, "n": ValueType.INT64}
    workshop.view("v", workshop.source("s", rows), types, aggregations=parts)
    asking = np.array([to_micros(at(1)), to_micros(at(3)), to_micros(at(3))])
    found = workshop.store.values_at("v", pl.DataFrame({"id": [1, 1, 2]}), asking, asking)
    assert found.select("total", "mean", "n").rows() == [(2**62, 2.0**62, 1), (None, None, 2), (7, 7.0, 1)]
