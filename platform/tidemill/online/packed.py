"""The packed layout: all features of a view in one field, for projects that no foreign Feast client reads.

    event, known, learned (three >i8, microseconds)  schema (4 bytes)  null bits  fixed-width values  lengths  texts

The schema is a hash of the features' names and types, so that a value written under another definition is known as such
and never read wrongly. Fixed-width values are little-endian and in the features' order, null ones zero; texts, lists
and maps lie at the end, after the lengths of all of them (u32). Instants keep their microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mmh3
import numpy as np
import polars as pl

from tidemill.definitions.catalog import Feature, View
from tidemill.definitions.types import ValueType
from tidemill.online.codec import encode_value
from tidemill.online.columns import plain_texts
from tidemill.online.declared import as_declared, filled, micros_of
from tidemill.online.pieces import Long, Piece, constant, numbers, total_length

FIXED_WIDTH = {
    ValueType.INT32: "<i4",
    ValueType.INT64: "<i8",
    ValueType.DOUBLE: "<f8",
    ValueType.FLOAT: "<f4",
    ValueType.BOOL: "<u1",
    ValueType.UNIX_TIMESTAMP: "<i8",
}
_U32 = struct.Struct("<I")


@dataclass(frozen=True)
class PackedSchema:
    """How the features of one view lie in their packed value."""

    features: tuple[Feature, ...]

    @cached_property
    def digest(self) -> bytes:
        text = ",".join(f"{feature.name}:{feature.dtype.name}" for feature in self.features)
        return _U32.pack(mmh3.hash(text, signed=False))

    @cached_property
    def bitmap(self) -> int:
        return -(-len(self.features) // 8)

    @cached_property
    def fixed(self) -> tuple[int, ...]:
        return tuple(place for place, feature in enumerate(self.features) if feature.dtype in FIXED_WIDTH)

    @cached_property
    def others(self) -> tuple[int, ...]:
        return tuple(place for place, feature in enumerate(self.features) if feature.dtype not in FIXED_WIDTH)


def packed_pieces(view: View, frame: pl.DataFrame) -> list[Piece]:
    """A view's rows in this layout, without their instants, each after its length (>u4)."""
    schema = PackedSchema(view.features)
    columns = [as_declared(feature.dtype, frame[feature.name]) for feature in view.features]
    pieces: list[Piece] = [constant(schema.digest), *_null_bits(columns, frame.height)]
    for place in schema.fixed:
        dtype = view.features[place].dtype
        pieces.append(numbers(_numbers_of(dtype, columns[place]), FIXED_WIDTH[dtype]))
    texts = [_other_pieces(view.features[place].dtype, columns[place]) for place in schema.others]
    pieces += [length for length, _ in texts]
    pieces += [text for _, text in texts]
    return [numbers(total_length(pieces, frame.height), ">u4"), *pieces]


def _null_bits(columns: Sequence[pl.Series], rows: int) -> list[Piece]:
    pieces: list[Piece] = []
    for first in range(0, len(columns), 8):
        bits = np.zeros(rows, dtype=np.uint8)
        for place, column in enumerate(columns[first : first + 8]):
            if column.null_count():
                bits |= column.is_null().to_numpy().astype(np.uint8) << place
        pieces.append(numbers(bits, "u1"))
    return pieces


def _numbers_of(dtype: ValueType, column: pl.Series) -> np.ndarray:
    if dtype is ValueType.UNIX_TIMESTAMP:
        return micros_of(column)
    return filled(column, False if dtype is ValueType.BOOL else 0).to_numpy()


def _other_pieces(dtype: ValueType, column: pl.Series) -> tuple[Piece, Piece]:
    """The lengths, and the bytes."""
    if dtype in (ValueType.STRING, ValueType.BYTES):
        lengths, texts = plain_texts(column)
        return numbers(lengths, "<u4"), texts
    raw = [_encode_other(dtype, value) for value in column]
    lengths = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    return numbers(lengths, "<u4"), Long(flat=np.frombuffer(b"".join(raw), dtype=np.uint8), lengths=lengths)


def _encode_other(dtype: ValueType, value: Any) -> bytes:
    if value is None:
        return b""
    return encode_value(dtype, value.to_list() if isinstance(value, pl.Series) else value)
