"""The digest of a frame's content: names, types and values in their order, whatever the memory layout behind them.

Columns are hashed in segments of a fixed number of rows, so that a frame that comes in pieces (a sunk training set) has
the same digest as one that is held whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

SEGMENT_ROWS = 1 << 16

_Update = Callable[[bytes | memoryview], None]


class ContentDigest:
    """A digest that is fed frame by frame. All but the last frame have a multiple of SEGMENT_ROWS rows."""

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        self._columns = {name: hashlib.sha256() for name in schema}
        self._rows = 0
        self._ended = False
        for name, dtype in schema.items():
            _text(self._columns[name].update, name)
            _text(self._columns[name].update, str(dtype))

    def update(self, frame: pl.DataFrame) -> None:
        if self._ended and frame.height:
            raise ValueError("only the last piece may end within a segment")
        self._rows += frame.height
        self._ended = bool(frame.height % SEGMENT_ROWS)
        for column in frame.get_columns():
            update = self._columns[column.name].update
            for start in range(0, frame.height, SEGMENT_ROWS):
                update(_segment(column.slice(start, SEGMENT_ROWS)))

    def hexdigest(self) -> str:
        whole = hashlib.sha256(struct.pack("<Q", self._rows))
        for digest in self._columns.values():
            whole.update(digest.digest())
        return whole.hexdigest()


def digest_of_frame(frame: pl.DataFrame) -> str:
    """SHA-256 in hex. Equal frames have equal digests on every machine; null differs from NaN and from zero."""
    digest = ContentDigest(frame.schema)
    digest.update(frame)
    return digest.hexdigest()


def _segment(values: pl.Series) -> bytes:
    digest = hashlib.sha256()
    _values(digest.update, values)
    return digest.digest()


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
    elif isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Decimal):
        _bytestrings(update, present.cast(pl.String).cast(pl.Binary))
    elif dtype == pl.Binary:
        _bytestrings(update, present)
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
    update(b"".join(values.to_list()))


def _bytes(values: np.ndarray) -> memoryview:
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return little.data.cast("B") if len(little) else memoryview(b"")


def _text(update: _Update, text: str) -> None:
    encoded = text.encode()
    update(struct.pack("<Q", len(encoded)))
    update(encoded)
