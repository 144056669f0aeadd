"""Plain Python values as Feast's protobuf values, and back. NaN stays NaN, null stays null."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType as FeastValueType

from tidemill.clock import to_micros
from tidemill.definitions.types import ValueType

_FIELDS = {
    ValueType.BYTES: "bytes_val",
    ValueType.STRING: "string_val",
    ValueType.INT32: "int32_val",
    ValueType.INT64: "int64_val",
    ValueType.DOUBLE: "double_val",
    ValueType.FLOAT: "float_val",
    ValueType.BOOL: "bool_val",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_values(values: Sequence[Any], dtype: ValueType) -> list[Value]:
    """A column as protobuf values of a declared type; None becomes the value that is not set."""
    field = _FIELDS.get(dtype)
    if field is not None:
        return [Value() if value is None else Value(**{field: value}) for value in values]
    if dtype is ValueType.UNIX_TIMESTAMP:
        return [Value() if value is None else Value(unix_timestamp_val=_seconds(value)) for value in values]
    present = [value for value in values if value is not None]
    found = iter(python_values_to_proto_values(present, FeastValueType(int(dtype))) if present else [])
    return [Value() if value is None else next(found) for value in values]


def to_python(value: Value, dtype: ValueType | None = None) -> Any:
    """A protobuf value as a plain one; timestamps come with their zone. None where it is not set."""
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    if kind == "unix_timestamp_val":
        return _EPOCH + timedelta(seconds=value.unix_timestamp_val)
    if kind in _FIELDS.values():
        return getattr(value, kind)
    if kind == "unix_timestamp_list_val":
        return [_EPOCH + timedelta(seconds=seconds) for seconds in value.unix_timestamp_list_val.val]
    return feast_value_type_to_python_type(value, None if dtype is None else FeastValueType(int(dtype)))


def to_stored(value: Value) -> Any:
    """As `to_python`, but JSON stays the text that columns hold."""
    return value.json_val if value.WhichOneof("val") == "json_val" else to_python(value)


def _seconds(value: Any) -> int:
    """Feast's wire format keeps whole seconds."""
    return to_micros(value) // 1_000_000 if isinstance(value, datetime) else int(value)
