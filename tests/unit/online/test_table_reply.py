"""Many replies read from their bytes are what the parser and the decoder find, or nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import numpy as np
import pytest

from tidemill.definitions.types import ValueType
from tidemill.online.codec import encode_timestamp, encode_value
from tidemill.online.decoding import FieldDecoder, WrongValues
from tidemill.online.table_reply import TableReply

TYPES = (
    ValueType.DOUBLE, ValueType.INT64, ValueType.STRING, ValueType.FLOAT, ValueType.BOOL, ValueType.INT32, None,
    ValueType.BYTES, ValueType.UNIX_TIMESTAMP, ValueType.INT64_LIST, ValueType.DOUBLE, ValueType.STRING, None,
)  # fmt: skip
ROWS = 60
VALUES: dict[ValueType | None, Sequence[Any]] = {
    ValueType.DOUBLE: (0.1, -1e300, math.inf, 5e-324, math.nan),
    ValueType.FLOAT: (0.5, -2.0, math.inf, 0.1),
    ValueType.INT64: (0, 10, 13, 127, 128, 2**56 - 1, 2**56, 2**63 - 1, -(2**63), -1),
    ValueType.INT32: (0, 13, -1, 2**31 - 1, -(2**31)),
    ValueType.STRING: ("", "text", "é" * 60, "a\nb", "*13\r", "$", "x" * 127, "\0"),
    ValueType.BYTES: (b"", b"\x00\xff", b"*12", b"x" * 200),
    ValueType.BOOL: (True, False),
    ValueType.INT64_LIST: ([], [1, 3]),
    ValueType.UNIX_TIMESTAMP: (0, 1_700_000_000),
    None: (1_700_000_000_000_000, 1_700_000_000_000_013, 1_700_000_000_123_456, 1_699_999_999_999_999),
}


def decoder(types: Sequence[ValueType | None]) -> FieldDecoder:
    return FieldDecoder([(f"view:{place}", dtype) for place, dtype in enumerate(types)], WrongValues())


DECODER = decoder(TYPES)
TABLE = TableReply(DECODER.types, DECODER.decode_row)


def encoded(dtype: ValueType | None, value: Any) -> bytes:
    return encode_timestamp(value) if dtype is None else encode_value(dtype, value)


def fields(draw: random.Random) -> list[bytes | None]:
    """A row without a lone carriage return, which is left to the parser."""
    values = [draw.choice([v for v in VALUES[dtype] if v != "*13\r"]) for dtype in DECODER.types]
    return [encoded(dtype, value) for dtype, value in zip(DECODER.types, values, strict=True)]


def as_sent(row: Sequence[bytes | None]) -> bytes:
    bulks = (b"$-1\r\n" if raw is None else b"$%d\r\n%s\r\n" % (len(raw), raw) for raw in row)
    return b"*%d\r\n" % len(row) + b"".join(bulks)


def table_of(seed: int) -> list[list[bytes | None]]:
    draw = random.Random(seed)
    return [fields(draw) for _ in range(ROWS)]


def sent(rows: Sequence[Sequence[bytes | None]]) -> bytes:
    return b"".join(map(as_sent, rows))


def parsed(data: bytes, rows: int) -> list[Any] | None:
    """What a parser makes of it; None unless it is so many replies and nothing else."""
    reader = hiredis.Reader()
    reader.feed(data)
    try:
        found = [reader.gets() for _ in range(rows)]
    except hiredis.ProtocolError:
        return None
    return None if False in found or reader.has_data() else found


def plain(columns: Sequence[Any]) -> list[str]:
    """As text, since NaN is not equal to itself, and 0.0 is to -0.0."""
    return [repr(column.tolist() if isinstance(column, np.ndarray) else column) for column in columns]


def careful(found: FieldDecoder, data: bytes, rows: int = ROWS) -> list[str]:
    replies = parsed(data, rows)
    assert replies is not None
    columns = zip(*map(found.decode_row, replies), strict=True)
    return plain([list(column) for column in columns])


@pytest.mark.parametrize("seed", range(30))
def test_usual_rows_are_what_each_of_them_is_alone(seed: int):
    data = sent(table_of(seed))
    table = TABLE.read(data, ROWS)
    assert table is not None
    assert table.without_null
    assert plain(table.columns) == careful(DECODER, data)


def test_numbers_are_arrays_and_everything_else_is_lists():
    table = TABLE.read(sent(table_of(0)), ROWS)
    assert table is not None
    kinds = {
        dtype: column.dtype if isinstance(column, np.ndarray) else list
        for dtype, column in zip(DECODER.types, table.columns, strict=True)
    }
    assert {kinds[dtype] for dtype in (ValueType.DOUBLE, ValueType.FLOAT)} == {np.dtype(np.float64)}
    assert {kinds[dtype] for dtype in (ValueType.INT64, ValueType.INT32)} == {np.dtype(np.int64)}
    assert {kinds[dtype] for dtype in (None, ValueType.STRING, ValueType.BYTES)} == {list}


@pytest.mark.parametrize(
    "types",
    [
        (None,),
        (ValueType.STRING, None),
        (ValueType.FLOAT, None),
        (ValueType.DOUBLE, None),
        (ValueType.FLOAT, ValueType.FLOAT, ValueType.INT64, None),
    ],
)
def test_any_kinds_of_fields_are_read(types: tuple[ValueType | None, ...]):
    found, draw = decoder(types), random.Random(3)
    rows = [
        [encoded(dtype, draw.choice([v for v in VALUES[dtype] if v != "*13\r"])) for dtype in found.types]
        for _ in range(ROWS)
    ]
    table = TableReply(found.types, found.decode_row).read(sent(rows), ROWS)
    assert table is not None
    assert plain(table.columns) == careful(found, sent(rows))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_bytes_are_nothing_is_read_that_a_parser_does_not_find(seed: int):
    draw = random.Random(seed)
    usual = sent(table_of(seed))
    for _ in range(25):
        data = bytearray(usual)
        for _ in range(draw.choice((1, 1, 2, 5))):
            draw.choice(CHANGES)(data, draw)
        table = TABLE.read(bytes(data), ROWS)
        if table is not None:
            assert plain(table.columns) == careful(DECODER, bytes(data))
            assert not table.without_null or not any(None in list(column) for column in table.columns)


def replace_a_byte(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] = draw.choice((0, 10, 13, 36, 42, 48, 49, 128, 255, draw.randrange(256)))


def remove_bytes(data: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(data))
    del data[place : place + draw.choice((1, 2, 7))]


def insert_bytes(data: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(data))
    data[place:place] = draw.choice((b"\r\n", b"$", b"\r\n$3\r\nabc", b"*13\r\n$9\r\n)", b"\r\n$-1\r\n", b"\x80"))


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (replace_a_byte, remove_bytes, insert_bytes)


@pytest.mark.parametrize("raw", [None, b""])
@pytest.mark.parametrize("field", range(len(TYPES)))
def test_of_rows_without_some_value_only_those_are_parsed(raw: bytes | None, field: int):
    rows = table_of(1)
    for place in (0, 30, 31, ROWS - 1):
        rows[place][field] = raw
    rows[40] = [raw] * len(TYPES)
    table = TABLE.read(sent(rows), ROWS)
    assert table is not None
    assert not table.without_null
    assert plain(table.columns) == careful(DECODER, sent(rows))


def test_a_value_that_looks_like_the_start_of_a_row_leaves_those_beside_a_missing_one_to_the_parser():
    rows = table_of(1)
    rows[7][DECODER.types.index(ValueType.BYTES)] = encode_value(ValueType.BYTES, b"*13")
    table = TABLE.read(sent(rows), ROWS)
    assert table is not None
    assert plain(table.columns) == careful(DECODER, sent(rows))
    rows[9][0] = None
    assert TABLE.read(sent(rows), ROWS) is None


@pytest.mark.parametrize("every", [1, 2])
def test_where_many_rows_lack_a_value_all_are_left_to_the_parser(every: int):
    rows = table_of(1)
    for row in rows[::every]:
        row[0] = None
    assert TABLE.read(sent(rows), ROWS) is None


@pytest.mark.parametrize("place", [0, ROWS - 1])
@pytest.mark.parametrize("raw", [b"\x98\x01\x00", b"\x00", b"\x29abc"])
@pytest.mark.parametrize("field", range(len(TYPES)))
def test_a_value_that_is_wrong_or_null_in_so_many_words_is_left_to_the_parser(place: int, raw: bytes, field: int):
    rows = table_of(1)
    rows[place][field] = raw
    assert TABLE.read(sent(rows), ROWS) is None


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [
        (ValueType.STRING, encode_value(ValueType.STRING, "a\r\nb")),
        (ValueType.STRING, encode_value(ValueType.STRING, "a\rb")),
        (ValueType.STRING, encode_value(ValueType.STRING, "x" * 128)),
        (ValueType.STRING, encode_value(ValueType.STRING, "x" * 2_000)),
        (ValueType.STRING, b"\x12\x02\xff\xfe"),
        (ValueType.STRING, b"\x12\x05abc"),
        (ValueType.INT64_LIST, encode_value(ValueType.INT64_LIST, [1, -3])),  # of 13 bytes, and then a tag of 10
        (ValueType.INT32, encode_value(ValueType.INT64, 7)),
        (ValueType.INT32, b"\x18" + encode_value(ValueType.INT64, 2**31)[1:]),
        (ValueType.INT64, b"\x20" + b"\x80" * 9 + b"\x02"),
        (ValueType.INT64, b"\x20" + b"\x80" * 10 + b"\x01"),
        (ValueType.INT64, b"\x20\x80"),
        (ValueType.DOUBLE, b"\x29*13\r\n$9\r"),
        (None, encode_timestamp(-1_000_000)),
        (None, encode_timestamp(1_700_000_000_123_456) + b"\x08\x01"),
    ],
)
def test_an_unusual_value_is_left_to_the_parser(dtype: ValueType | None, raw: bytes):
    rows = table_of(2)
    rows[ROWS // 2][DECODER.types.index(dtype)] = raw
    assert TABLE.read(sent(rows), ROWS) is None


def test_a_nil_beside_a_text_that_looks_like_what_it_lacks_is_found():
    rows = table_of(4)
    texts = DECODER.types.index(ValueType.STRING)
    rows[9][texts] = None
    rows[9][texts + 1] = encode_value(ValueType.STRING, "\r\n$3\r\nabc")
    table = TABLE.read(sent(rows), ROWS)
    assert table is not None
    assert plain(table.columns) == careful(DECODER, sent(rows))


def test_a_number_may_look_like_the_end_of_a_line_or_a_value():
    rows = table_of(5)
    for place, number in enumerate((b"\r\n\r\n\r\n\r\n", b"*13\r\n$5\r", b"$9\r\n)*12", b"\r\n$-1\r\n\0")):
        rows[place][0] = b"\x29" + number
    data = sent(rows)
    table = TABLE.read(data, ROWS)
    assert table is not None
    assert table.without_null
    assert plain(table.columns) == careful(DECODER, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"+OK\r\n",
        lambda data: data + b"\r\n",
        lambda data: data[:-1],
        lambda data: b"-LOADING Redis is loading\r\n" + data,
        lambda _: b"",
        lambda data: data + data,
        lambda _: sent(table_of(7)[1:]),
        lambda _: sent(table_of(7)[1:]) + b"-WRONGTYPE Operation against a key\r\n",
        lambda _: sent([row[1:] for row in table_of(7)]),
    ],
)
def test_anything_but_all_the_rows_is_left_to_the_parser(change: Callable[[bytes], bytes]):
    assert TABLE.read(change(sent(table_of(7))), ROWS) is None
