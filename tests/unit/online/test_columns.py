"""Whole columns give the bytes that single values give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.online.codec import encode_timestamp, encode_value
from tidemill.online.columns import feature_pieces, key_pieces, timestamps
from tidemill.online.keys import KeyLayout
from tidemill.online.pieces import join_rows

INSTANTS = st.integers(-10_000_000_000, 10_000_000_000).map(
    lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
SMALL_AND_LARGE = st.one_of(st.integers(-3, 300), st.integers(-(2**63), 2**63 - 1))
VALUES = {
    ValueType.INT64: SMALL_AND_LARGE,
    ValueType.INT32: st.integers(-(2**31), 2**31 - 1),
    ValueType.DOUBLE: st.floats(allow_nan=False),
    ValueType.FLOAT: st.floats(width=32, allow_nan=False),
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: st.one_of(st.text(max_size=9), st.text(min_size=100, max_size=400)),
    ValueType.BYTES: st.binary(max_size=300),
    ValueType.UNIX_TIMESTAMP: INSTANTS,
    ValueType.INT64_LIST: st.lists(SMALL_AND_LARGE, max_size=5),
    ValueType.STRING_LIST: st.lists(st.text(max_size=9), max_size=5),
}


def rows_of(flat: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    raw = flat.tobytes()
    return [raw[a:b] for a, b in pairwise(offsets)]


def without_length(row: bytes, spelled: str) -> bytes:
    size = 1 if spelled.startswith("B") else 4
    assert int.from_bytes(row[:size], "big") == len(row) - size
    return row[size:]


@pytest.mark.parametrize("dtype", VALUES, ids=lambda dtype: dtype.name)
@given(data=st.data())
@settings(max_examples=80)
def test_a_column_s_bytes_are_those_of_its_values(dtype: ValueType, data: st.DataObject):
    values = data.draw(st.lists(st.one_of(st.none(), VALUES[dtype]), min_size=1, max_size=30))
    pieces, spelled = feature_pieces(dtype, pl.Series("x", values, dtype=dtype.polars()))
    rows = rows_of(*join_rows(pieces, len(values)))
    assert [without_length(row, spelled) for row in rows] == [encode_value(dtype, value) for value in values]


@given(st.lists(st.tuples(SMALL_AND_LARGE, st.text(max_size=200), st.integers(-5, 5)), min_size=1, max_size=30))
@settings(max_examples=80)
def test_a_frame_s_keys_are_those_of_its_rows(rows: list[tuple[int, str, int]]):
    types = (ValueType.INT64, ValueType.STRING, ValueType.INT32)
    layout = KeyLayout(project="prod", join_keys=("a", "b", "c"), types=types)
    frame = pl.DataFrame(rows, schema=dict(zip("abc", (t.polars() for t in types), strict=True)), orient="row")
    pieces = [piece for name, dtype in zip("abc", types, strict=True) for piece in key_pieces(dtype, frame[name])]
    found = rows_of(*join_rows(pieces, len(rows)))
    assert [layout.head + part + layout.tail for part in found] == layout.encode_columns(list(zip(*rows, strict=True)))


@given(st.lists(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999), min_size=1, max_size=30))
@settings(max_examples=80)
def test_event_times_are_those_of_single_ones(micros: list[int]):
    rows = rows_of(*join_rows([timestamps(np.array(micros))], len(micros)))
    assert [without_length(row, "B") for row in rows] == [encode_timestamp(at) for at in micros]


def test_whole_seconds_have_no_nanoseconds():
    micros = [1_380_585_600_000_000 + 1_000_000 * n for n in range(3)]
    rows = rows_of(*join_rows([timestamps(np.array(micros))], 3))
    assert [row[1:] for row in rows] == [encode_timestamp(at) for at in micros]


def test_int64_beside_nulls_keeps_its_last_bits():
    exact = 9_007_199_254_740_993
    pieces, spelled = feature_pieces(ValueType.INT64, pl.Series([exact, None]))
    rows = rows_of(*join_rows(pieces, 2))
    assert without_length(rows[0], spelled) == encode_value(ValueType.INT64, exact)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (ValueType.INT64, ["1"]),
        (ValueType.STRING, [1]),
        (ValueType.INT64, [0.5]),
        (ValueType.INT32, [2**40]),
        (ValueType.DOUBLE, ["x"]),
    ],
)
def test_a_column_of_another_type_is_refused(dtype: ValueType, values: list):
    with pytest.raises(InputError, match=dtype.name):
        feature_pieces(dtype, pl.Series("x", values))
