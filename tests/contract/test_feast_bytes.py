"""What we write into Redis is, byte for byte, what Feast would have written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType as FeastType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.online.codec import decode_timestamp, decode_value, encode_timestamp, encode_value
from tidemill.online.keys import KeyLayout, hash_field, split_key

I64 = st.integers(-(2**63), 2**63 - 1)
I32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
WHOLE_SECONDS = st.integers(-10_000_000_000, 10_000_000_000).map(
    lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
SCALARS = {
    "BYTES": st.binary(max_size=300),
    "STRING": TEXT,
    "INT32": I32,
    "INT64": I64,
    "DOUBLE": st.floats(allow_nan=False),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "BOOL": st.booleans(),
}


def message(field: str, value: object) -> bytes:
    return Value_pb2.Value(**{field: value}).SerializeToString()


@pytest.mark.parametrize("name", SCALARS)
@given(data=st.data())
@settings(max_examples=60)
def test_a_scalar_has_feast_s_bytes_and_comes_back(name: str, data: st.DataObject):
    value = data.draw(SCALARS[name])
    raw = encode_value(ValueType[name], value)
    assert raw == message(f"{name.lower()}_val", value)
    assert decode_value(ValueType[name], raw) == value


@pytest.mark.parametrize("name", SCALARS)
@given(data=st.data())
@settings(max_examples=40)
def test_a_list_has_feast_s_bytes_and_comes_back(name: str, data: st.DataObject):
    values = data.draw(st.lists(SCALARS[name], max_size=20))
    inner = getattr(Value_pb2, f"{name.title()}List")(val=values)
    raw = encode_value(ValueType[f"{name}_LIST"], values)
    assert raw == message(f"{name.lower()}_list_val", inner)
    assert decode_value(ValueType[f"{name}_LIST"], raw) == values


@given(WHOLE_SECONDS, st.lists(WHOLE_SECONDS, max_size=5))
@settings(max_examples=60)
def test_instants_have_feast_s_bytes_and_come_back(instant: datetime, instants: list[datetime]):
    raw = encode_value(ValueType.UNIX_TIMESTAMP, instant)
    assert raw == message("unix_timestamp_val", int(instant.timestamp()))
    assert decode_value(ValueType.UNIX_TIMESTAMP, raw) == instant
    many = encode_value(ValueType.UNIX_TIMESTAMP_LIST, instants)
    inner = Value_pb2.Int64List(val=[int(item.timestamp()) for item in instants])
    assert many == message("unix_timestamp_list_val", inner)
    assert decode_value(ValueType.UNIX_TIMESTAMP_LIST, many) == instants


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INT64_SET", {1, 2}),
        ("STRING_SET", {"a"}),
        ("DOUBLE_SET", {0.5}),
        ("JSON", '{"a": 1}'),
        ("MAP", {"a": 1, "b": "x", "c": None, "d": {"e": 2.5}, "f": [1, 2], "g": True}),
        ("STRUCT", {"a": 1, "b": "x"}),
        ("MAP_LIST", [{"a": 1}, {"b": "x"}]),
        ("DECIMAL", Decimal("12.30")),
    ],
)
def test_sets_maps_and_decimals_are_read_by_either_side(name: str, value: object):
    ours = encode_value(ValueType[name], value)
    theirs = python_values_to_proto_values([value], FeastType[name])[0]
    assert Value_pb2.Value.FromString(ours) == theirs
    assert decode_value(ValueType[name], theirs.SerializeToString()) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAP", '{"a": [1, 2], "b": {"c": null}}'), ("STRUCT", '{"a": 1}'), ("MAP_LIST", '[{"a": 1}, {}]')],
)
def test_a_map_may_be_given_as_json(name: str, value: str):
    theirs = python_values_to_proto_values([value], FeastType[name])[0]
    assert Value_pb2.Value.FromString(encode_value(ValueType[name], value)) == theirs


def test_a_set_within_a_map_stays_a_set():
    value = {"a": {1, 2}, "b": {"x"}}
    ours = encode_value(ValueType.MAP, value)
    assert Value_pb2.Value.FromString(ours) == python_values_to_proto_values([value], FeastType.MAP)[0]
    assert decode_value(ValueType.MAP, ours) == value


@pytest.mark.parametrize("name", ["BOOL_LIST", "INT64_LIST", "DOUBLE_LIST", "STRING_LIST", "BYTES_SET"])
def test_a_null_within_a_list_is_refused_where_feast_writes_another_value(name: str):
    with pytest.raises(InputError, match="a list cannot hold a null"):
        encode_value(ValueType[name], [None])


@pytest.mark.parametrize("value", ["x", "", True, [1], {}])
def test_what_is_no_decimal_is_refused(value: object):
    with pytest.raises(InputError, match="not a value of type DECIMAL"):
        encode_value(ValueType.DECIMAL, value)


def test_null_is_the_empty_value():
    assert encode_value(ValueType.INT64, None) == Value_pb2.Value().SerializeToString()
    assert decode_value(ValueType.INT64, b"") is None
    assert decode_value(ValueType.INT64, Value_pb2.Value(null_val=Value_pb2.NULL).SerializeToString()) is None


def test_a_list_written_unpacked_is_read_too():
    unpacked = b"\x72\x04\x08\x05\x08\x07"  # field 14 with two separate elements
    assert list(Value_pb2.Value.FromString(unpacked).int64_list_val.val) == [5, 7]
    assert decode_value(ValueType.INT64_LIST, unpacked) == [5, 7]


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
@settings(max_examples=200)
def test_event_times_have_protobuf_s_bytes_and_come_back(micros: int):
    theirs = Timestamp()
    theirs.FromMicroseconds(micros)
    assert encode_timestamp(micros) == theirs.SerializeToString()
    assert decode_timestamp(theirs.SerializeToString()) == micros


@given(I64, I32, TEXT, st.binary(max_size=30), st.sampled_from(["prod", "my_prod", "ü"]))
@settings(max_examples=100)
def test_entity_keys_have_feast_s_bytes_whatever_the_order_of_declaration(i64, i32, text, binary, project: str):
    names = ("zone", "id", "Route", "blob")
    types = (ValueType.INT64, ValueType.INT32, ValueType.STRING, ValueType.BYTES)
    layout = KeyLayout(project=project, join_keys=names, types=types)
    theirs = serialize_entity_key(
        EntityKey(
            join_keys=names,
            entity_values=[
                Value_pb2.Value(int64_val=i64),
                Value_pb2.Value(int32_val=i32),
                Value_pb2.Value(string_val=text),
                Value_pb2.Value(bytes_val=binary),
            ],
        ),
        entity_key_serialization_version=3,
    )
    ours = layout.encode((i64, i32, text, binary))
    assert ours == theirs + project.encode()
    assert layout.decode(ours) == (i64, i32, text, binary)
    assert split_key(ours) == (tuple(sorted(names)), project.encode())


@given(TEXT, TEXT)
@settings(max_examples=100)
def test_field_hashes_are_feast_s(view: str, feature: str):
    assert hash_field(view, feature) == _mmh3(f"{view}:{feature}")
