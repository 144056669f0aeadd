from __future__ import annotations

from typing import Any

import pytest

from tidemill.definitions.types import ValueType
from tidemill.online.codec import encode_timestamp, encode_value
from tidemill.online.decoding import FieldDecoder, WrongValues
from tidemill.online.reply_columns import ReplyColumns

TYPES = (ValueType.DOUBLE, ValueType.INT64, ValueType.STRING, ValueType.FLOAT, None)
WHOLE = (0, 127, 128, 300_000, 2**40, -1, 2**63 - 1, -(2**63))


def decoder() -> FieldDecoder:
    return FieldDecoder([(f"view:{place}", dtype) for place, dtype in enumerate(TYPES)], WrongValues())


ORDER = decoder().order


def reply(number: int) -> list[bytes | None]:
    if number % 17 == 3:
        return [None] * len(TYPES)
    values = (number / 7, WHOLE[number % len(WHOLE)], f"text {number % 5} é", number / 8)
    found = [encode_value(dtype, value) for dtype, value in zip(TYPES, values, strict=False)]  # type: ignore[arg-type]
    found.append(encode_timestamp(1_700_000_000_000_000 + number % 3))
    return [found[place] for place in ORDER]


def one_by_one(replies: list[Any]) -> list[list[Any]]:
    found = decoder()
    rows = [[row[place] for place in found.row_places] for row in map(found.decode_row, replies)]
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("rows", [1, 2, 15, 40, 300])
def test_rows_together_are_what_each_row_is_alone(rows: int):
    replies = [reply(number) for number in range(rows)]
    columns, without_null = decoder().decode(replies)
    assert columns == one_by_one(replies)
    assert without_null is not any(None in column for column in columns)


@pytest.mark.parametrize("raw", [None, b"", encode_value(ValueType.STRING, "no")])
@pytest.mark.parametrize("field", range(len(TYPES)))
def test_a_number_that_is_missing_null_or_wrong_is_counted_once(raw: bytes | None, field: int):
    replies = [row for row in map(reply, range(200)) if None not in row]
    replies[70] = [*replies[70][:field], raw, *replies[70][field + 1 :]]
    wrong = WrongValues()
    found = FieldDecoder([(f"view:{place}", dtype) for place, dtype in enumerate(TYPES)], wrong)
    columns, without_null = found.decode(replies)
    assert columns == one_by_one(replies)
    assert without_null is not any(None in column for column in columns)
    expected = raw and found.types[field] is not ValueType.STRING
    assert sum(wrong.count.values()) == (1 if expected else 0)


@pytest.mark.parametrize("bursts", [[300], [1, 299], [40, 80, 120, 299], list(range(1, 300, 7))])
def test_what_was_decoded_early_is_what_would_be_decoded_late(bursts: list[int]):
    replies = [reply(number) for number in range(300)]
    columns = ReplyColumns([(decoder(), 100), (decoder(), 0), (decoder(), 200)])
    come: list[Any] = []
    for upto in bursts:
        come += replies[len(come) : upto]
        columns.take(come)
    come += replies[len(come) :]
    first, none, last = columns.finish(come)
    assert first.columns == one_by_one(replies[:100])
    assert none.columns == [[] for _ in TYPES]
    assert last.columns == one_by_one(replies[100:])


def test_replies_that_come_again_over_a_new_connection_count_once():
    replies = [reply(number) for number in range(100)]
    columns = ReplyColumns([(decoder(), 100)])
    columns.take([reply(number + 1) for number in range(50)])
    columns.take(replies[:40])
    assert columns.finish(replies)[0].columns == one_by_one(replies)


def test_a_refusal_among_the_replies_is_left_for_the_end():
    columns = ReplyColumns([(decoder(), 40)])
    columns.take([*(reply(number) for number in range(20)), ValueError("refused")])
    replies = [reply(number) for number in range(40)]
    assert columns.finish(replies)[0].columns == one_by_one(replies)
