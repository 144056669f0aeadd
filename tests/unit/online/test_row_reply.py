"""A glance at the bytes of one reply finds what the parser and the decoder find, or nothing."""

from __future__ import annotations

import math
import random
from typing import Any

import hiredis
import pytest

from tidemill.definitions.types import ValueType
from tidemill.online.codec import encode_timestamp, encode_value
from tidemill.online.decoding import FieldDecoder, WrongValues
from tidemill.online.row_columns import columns_of_row
from tidemill.online.row_reply import RowReply

KINDS = (
    ValueType.DOUBLE,
    ValueType.INT64,
    ValueType.STRING,
    ValueType.FLOAT,
    ValueType.BOOL,
    ValueType.INT32,
    ValueType.BYTES,
    ValueType.UNIX_TIMESTAMP,
    ValueType.INT64_LIST,
    ValueType.STRING,
    None,
)
DECODER = FieldDecoder([(f"view:{place}", dtype) for place, dtype in enumerate(KINDS)], WrongValues())
REPLY = RowReply(DECODER.types)
VALUES: dict[ValueType | None, tuple[Any, ...]] = {
    ValueType.DOUBLE: (0.1, -1e300, math.inf, 5e-324),
    ValueType.FLOAT: (0.5, -2.0, math.inf),
    ValueType.INT64: (0, 127, 128, 2**63 - 1, -(2**63), None),
    ValueType.INT32: (0, -1, 2**31 - 1, None),
    ValueType.STRING: ("", "text", "é" * 200, "a\r\nb", "\r\n$3\r\nabc", "$-1\r\n", "\r\n", "x\r\n$", None),
    ValueType.BYTES: (b"", b"\r\n$-1\r\n$-1\r\n", b"\x00\xff", None),
    ValueType.BOOL: (True, False, None),
    ValueType.INT64_LIST: ([], [1, -3], None),
}


def raw_field(dtype: ValueType | None, draw: random.Random) -> bytes | None:
    if dtype is None or dtype is ValueType.UNIX_TIMESTAMP:
        micros = draw.choice((0, 1_700_000_000_000_000, 1_700_000_000_123_456, -1_000_000))
        return encode_timestamp(micros) if dtype is None else encode_value(dtype, micros // 1_000_000)
    value = draw.choice(VALUES[dtype])
    return draw.choice((None, b"")) if value is None else encode_value(dtype, value)


def fields(seed: int) -> list[bytes | None]:
    draw = random.Random(seed)
    return [raw_field(dtype, draw) for dtype in DECODER.types]


def as_sent(found: list[bytes | None]) -> bytes:
    bulks = (b"$-1\r\n" if raw is None else b"$%d\r\n%s\r\n" % (len(raw), raw) for raw in found)
    return b"*%d\r\n" % len(found) + b"".join(bulks)


def parsed(data: bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(data)
    return reader.gets()


def test_what_a_glance_finds_is_what_the_parser_and_the_decoder_find():
    understood = 0
    for seed in range(2_000):
        data = as_sent(fields(seed))
        row = REPLY.read(data)
        if row is not None:
            understood += 1
            assert row == DECODER.decode_row(parsed(data))
    assert understood > 500  # all but those with line ends in their texts


def test_a_row_without_line_ends_in_its_texts_is_understood():
    found = [encode_timestamp(1) if dtype is None else b"" for dtype in DECODER.types]
    found[:2] = [encode_value(dtype, 1.5) for dtype in DECODER.types[:2]]  # type: ignore[arg-type]
    assert REPLY.read(as_sent(found)) == DECODER.decode_row(found)


def test_a_reply_that_is_not_there_whole_is_left_to_the_parser():
    for data in map(as_sent, map(fields, range(200))):
        assert all(REPLY.read(data[:size]) is None for size in range(len(data)))


def test_more_than_one_reply_is_left_to_the_parser():
    for data in map(as_sent, map(fields, range(200))):
        for more in (b"\r\n", b"$-1\r\n", b"*0\r\n", b"$2\r\nab\r\n", data):
            assert REPLY.read(data + more) is None


def test_numbers_that_are_missing_null_or_of_another_type_are_left_to_the_decoder():
    good = [encode_timestamp(1) if dtype is None else b"" for dtype in DECODER.types]
    good[:2] = [encode_value(dtype, 1.5) for dtype in DECODER.types[:2]]  # type: ignore[arg-type]
    for wrong in (None, b"", encode_value(ValueType.STRING, "1234567"), encode_value(ValueType.INT64, 3)):
        for place in range(2):
            assert REPLY.read(as_sent([*good[:place], wrong, *good[place + 1 :]])) is None


def test_a_value_that_is_not_of_its_type_is_left_to_the_decoder_which_counts_it():
    wrong = WrongValues()
    decoder = FieldDecoder([("view:whole", ValueType.INT64), ("view:time", None)], wrong)
    data = as_sent([encode_value(ValueType.STRING, "no"), encode_timestamp(1)])
    assert RowReply(decoder.types).read(data) is None
    assert decoder.decode_row(parsed(data)) == [None, 1]
    assert wrong.count == {"view:whole": 1}


@pytest.mark.parametrize(
    "data", [b"", b"-WRONGTYPE no hash\r\n", b"*-1\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"+OK\r\n"]
)
def test_answers_of_another_kind_are_left_to_the_parser(data: bytes):
    assert REPLY.read(data) is None


def test_lists_are_not_shared_between_answers():
    found = [encode_timestamp(1) if dtype is None else b"" for dtype in DECODER.types]
    found[:2] = [encode_value(dtype, 1.5) for dtype in DECODER.types[:2]]  # type: ignore[arg-type]
    place = DECODER.types.index(ValueType.INT64_LIST)
    found[place] = encode_value(ValueType.INT64_LIST, [1, 2])
    first, second = (REPLY.read(as_sent(found)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first[place] == second[place] == [1, 2]
    assert first[place] is not second[place]


def test_columns_of_a_row_are_named_whatever_their_names_are():
    names = ["plain", "it's", 'a "b"\n', "\\", "}", "é"]
    make = columns_of_row(names, [5, 0, 0, 2, 3, 1], 6)
    row = [10, 11, 12, 13, 14, None]
    found = make(row)
    assert list(found.items()) == list(zip(names, [[None], [10], [10], [12], [13], [11]], strict=True))
    assert found["it's"] is not make(row)["it's"]
