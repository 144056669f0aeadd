from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from tidemill.definitions.catalog import Feature, View
from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError
from tidemill.online.packed import packed_pieces
from tidemill.online.packed_reads import PackedDecoder, PackedReader
from tidemill.online.pieces import join_rows
from tidemill.online.value_memo import WrongValues

T0 = datetime(2024, 5, 1, tzinfo=UTC)
NUMBERS = tuple(
    Feature(name=dtype.name.lower(), dtype=dtype)
    for dtype in (ValueType.INT64, ValueType.BOOL, ValueType.DOUBLE, ValueType.UNIX_TIMESTAMP, ValueType.INT32)
)
STRINGS = (Feature(name="city", dtype=ValueType.STRING), *NUMBERS, Feature(name="code", dtype=ValueType.STRING))
MIXED = (*STRINGS, Feature(name="raw", dtype=ValueType.BYTES), Feature(name="list", dtype=ValueType.INT64_LIST))
SIZES = [1, 2, 100]


def value(dtype: ValueType, number: int) -> Any:
    return {
        ValueType.INT64: (-1) ** number * number * 2**40,
        ValueType.INT32: -number,
        ValueType.BOOL: number % 2 == 0,
        ValueType.DOUBLE: number / 7,
        ValueType.UNIX_TIMESTAMP: T0 + timedelta(microseconds=number),
        ValueType.STRING: "x" * (number % 5) + str(number),
        ValueType.BYTES: bytes([0xFF, number]),
        ValueType.INT64_LIST: [number, -number],
    }[dtype]


def rows_of(features: tuple[Feature, ...], count: int) -> list[dict[str, Any]]:
    return [{feature.name: value(feature.dtype, number) for feature in features} for number in range(count)]


def packed(features: tuple[Feature, ...], rows: list[dict[str, Any]]) -> list[bytes]:
    """The values as the writer makes them, the event of row n being n microseconds."""
    view = View(name="v", entities=(), join_keys=(), features=features, source="s")
    schema = {feature.name: feature.dtype.polars() for feature in features}
    flat, offsets = join_rows(packed_pieces(view, pl.DataFrame(rows, schema=schema, orient="row")), len(rows))
    pieces = [flat[start:end].tobytes()[4:] for start, end in pairwise(offsets)]
    return [struct.pack(">qqq", number, 0, 0) + piece for number, piece in enumerate(pieces)]


def columns_of(features: tuple[Feature, ...], rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [*([row[feature.name] for row in rows] for feature in features), list(range(len(rows)))]


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("features", [NUMBERS, STRINGS, MIXED], ids=["numbers", "strings", "mixed"])
def test_what_was_packed_is_read(features: tuple[Feature, ...], count: int):
    rows = rows_of(features, count)
    assert PackedReader(features).read(packed(features, rows), range(len(features)))[0] == columns_of(features, rows)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("features", [STRINGS, MIXED], ids=["strings", "mixed"])
def test_nulls_are_null_and_their_neighbours_are_not(features: tuple[Feature, ...], count: int):
    rows = rows_of(features, count)
    for number, row in enumerate(rows):
        row[features[number % len(features)].name] = None
    assert PackedReader(features).read(packed(features, rows), range(len(features)))[0] == columns_of(features, rows)


@pytest.mark.parametrize("count", SIZES)
def test_texts_beyond_ascii_keep_their_places(count: int):
    rows = [
        row | {"city": "Zürich", "code": "日本"[: 1 + number % 2]} for number, row in enumerate(rows_of(STRINGS, count))
    ]
    assert PackedReader(STRINGS).read(packed(STRINGS, rows), range(len(STRINGS)))[0] == columns_of(STRINGS, rows)


@pytest.mark.parametrize("count", SIZES)
def test_only_the_wanted_features_are_read_in_the_order_wanted(count: int):
    rows = rows_of(STRINGS, count)
    columns = columns_of(STRINGS, rows)
    assert PackedReader(STRINGS).read(packed(STRINGS, rows), [6, 1])[0] == [columns[6], columns[1], columns[-1]]


@pytest.mark.parametrize("count", SIZES)
def test_rows_never_written_are_none_everywhere(count: int):
    rows = rows_of(STRINGS, count)
    found, _ = PackedReader(STRINGS).read([None, *packed(STRINGS, rows), None], [0, 1])
    assert found == [[None, *column, None] for column in (columns_of(STRINGS, rows)[place] for place in (0, 1, -1))]


@pytest.mark.parametrize("count", SIZES)
def test_it_is_certain_that_nothing_is_null_only_where_nothing_is(count: int):
    rows = rows_of(STRINGS, count)
    reader = PackedReader(STRINGS)
    assert reader.read(packed(STRINGS, rows), [0])[1]
    rows[-1]["city"] = None
    assert not reader.read(packed(STRINGS, rows), [0])[1]
    assert not reader.read([None], [0])[1]


def damaged(raw: bytes) -> dict[str, bytes]:
    return {
        "cut off": raw[:20],
        "cut off in its texts": raw[:-1],
        "too long": raw + b"x",
        "of another definition": raw[:24] + b"\0\0\0\0" + raw[28:],
    }


@pytest.mark.parametrize("damage", ["cut off", "cut off in its texts", "too long", "of another definition"])
@pytest.mark.parametrize("features", [NUMBERS, STRINGS], ids=["numbers", "strings"])
def test_a_damaged_value_is_refused_alone_and_among_many(features: tuple[Feature, ...], damage: str):
    raw = packed(features, rows_of(features, 20))
    raw[7] = damaged(raw[7])[damage]
    reader = PackedReader(features)
    for some in (raw[7:8], raw):
        with pytest.raises(WrongValueError):
            reader.read(some, [0])


def test_a_damaged_value_reads_as_never_written_and_is_counted_and_the_others_are_read():
    rows, wrong = rows_of(STRINGS, 20), WrongValues()
    raw = packed(STRINGS, rows)
    decoder = PackedDecoder([("trips", STRINGS, [0, 1]), ("again", STRINGS, [6])], wrong)
    columns, without_null = decoder.decode([(one[:-1] if number == 7 else one, one) for number, one in enumerate(raw)])
    expected = columns_of(STRINGS, rows)
    for place, column in zip((0, 1, -1), columns, strict=False):
        assert column == [None if number == 7 else item for number, item in enumerate(expected[place])]
    assert columns[3:] == [expected[6], expected[-1]]
    assert not without_null
    assert wrong.count == {"trips:packed value": 1}


def test_one_row_is_what_it_is_among_many():
    raw = packed(MIXED, rows_of(MIXED, 30))
    decoder = PackedDecoder([("a", MIXED, [3, 0]), ("b", MIXED, [8, 5])], WrongValues())
    replies = list(zip(raw, reversed(raw), strict=True))
    rows = [decoder.decode_row(reply) for reply in replies]
    columns, without_null = decoder.decode(replies)
    assert not without_null  # a list may be null without saying so
    assert all(len(row) == decoder.row_width for row in rows)
    assert [[row[place] for place in decoder.row_places] for row in rows] == [
        list(r) for r in zip(*columns, strict=True)
    ]
    with pytest.raises(WrongValueError):
        decoder.decode_row((raw[0], None))
