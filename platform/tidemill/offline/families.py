"""What kind of thing an Arrow type holds."""

from __future__ import annotations

import pyarrow as pa


def family(dtype: pa.DataType) -> str:
    """What kind of thing a type holds; widths and time units do not matter."""
    if pa.types.is_dictionary(dtype):
        return family(dtype.value_type)
    checks = {
        "null": pa.types.is_null,
        "boolean": pa.types.is_boolean,
        "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t),
        "decimal": pa.types.is_decimal,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
        "bytes": lambda t: (
            pa.types.is_binary(t)
            or pa.types.is_large_binary(t)
            or pa.types.is_binary_view(t)
            or pa.types.is_fixed_size_binary(t)
        ),
        "instant": lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t),
        "struct": pa.types.is_struct,
        "map": pa.types.is_map,
    }
    for name, holds in checks.items():
        if holds(dtype):
            return name
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return f"list of {family(dtype.value_type)}"
    return str(dtype)
