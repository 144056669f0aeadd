"""The digest of a frame's content: names, types and values in their order, whatever the memory layout behind them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import numpy as np
import polars as pl

_Update = Callable[[bytes | memoryview], None]


def digest_of_frame(frame: pl.DataFrame) -> str:
    """SHA-256 in hex. Equal frames have equal digests on every machine; null differs from NaN and from zero."""
    digest = hashlib.sha256()
    digest.update(struct.pack("<Q", frame.height))
    for column in frame.get_columns():
        digest.update(digest_of_column(column).encode())
    return digest.hexdigest()


def digest_of_column(column: pl.Series) -> str:
    digest = hashlib.sha256()
    _text(digest.update, column.name)
    _text(digest.update, str(column.dtype))
    _values(digest.update, column)
    return digest.hexdigest()


def _values(update: _Update, column: pl.Series) -> None:
    valid = column.is_not_null()
    update(struct.pack("<QQ", len(column), column.null_count()))
    if column.null_count():
        update(np.packbits(valid.to_numpy(), bitorder="little").tobytes())
    present = column.filter(valid) if column.null_count() else column
    dtype = column.dtype
    if isinstance(dtype, pl.List):
        update(_bytes(present.list.len().to_numpy()))
        _values(update, present.list.explode(keep_nulls=True, empty_as_null=False))
    elif isinstance(dtype, pl.Array):
        _values(update, present.arr.to_list().list.explode(keep_nulls=True, empty_as_null=False))
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            _text(update, field.name)
            _values(update, present.struct.field(field.name))
    elif isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        _bytestrings(update, present.cast(pl.String).cast(pl.Binary))
    elif dtype == pl.Binary:
        _bytestrings(update, present)
    elif isinstance(dtype, pl.Decimal):
        _bytestrings(update, present.cast(pl.String).cast(pl.Binary))
    elif dtype.is_float():
        update(_bytes(_canonical(present.to_numpy())))
    elif dtype == pl.Boolean:
        update(np.packbits(present.to_numpy(), bitorder="little").tobytes())
    elif dtype != pl.Null:
        update(_bytes(present.to_physical().to_numpy()))


def _canonical(values: np.ndarray) -> np.ndarray:
    """One bit pattern for every NaN, and for zero whatever its sign."""
    values = values + 0.0
    values[np.isnan(values)] = np.nan
    return values


def _bytestrings(update: _Update, values: pl.Series) -> None:
    update(_bytes(values.bin.size().to_numpy()))
    for start in range(0, len(values), 1 << 20):
        update(b"".join(values.slice(start, 1 << 20).to_list()))


def _bytes(values: np.ndarray) -> memoryview:
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return memoryview(little.view(np.uint8)) if len(little) else memoryview(b"")


def _text(update: _Update, text: str) -> None:
    encoded = text.encode()
    update(struct.pack("<Q", len(encoded)))
    update(encoded)
