"""The packed layout: all features of a view in one field, for projects that no foreign Feast client reads.

    event, known, learned (three >i8, microseconds)  schema (4 bytes)  null bits  fixed-width values  lengths  texts

The schema is a hash of the features' names and types, so that a value written under another definition is known as such
and never read wrongly. Fixed-width values are little-endian and in the features' order, null ones zero; texts, lists
and maps lie at the end, after the lengths of all of them (u32). Instants keep their microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mmh3
import numpy as np
import polars as pl

from tidemill.definitions.catalog import Feature, View
from tidemill.definitions.types import ValueType
from tidemill.online.codec import WrongValueError, decode_value, encode_value, instant_of_micros
from tidemill.online.columns import Long, Piece, as_declared, constant, micros_of, numbers, plain_texts, total_length

_FIXED = {
    ValueType.INT32: "<i4",
    ValueType.INT64: "<i8",
    ValueType.DOUBLE: "<f8",
    ValueType.FLOAT: "<f4",
    ValueType.BOOL: "<u1",
    ValueType.UNIX_TIMESTAMP: "<i8",
}
_INSTANTS = struct.Struct(">qqq")
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
        return tuple(place for place, feature in enumerate(self.features) if feature.dtype in _FIXED)

    @cached_property
    def others(self) -> tuple[int, ...]:
        return tuple(place for place, feature in enumerate(self.features) if feature.dtype not in _FIXED)

    @cached_property
    def record(self) -> np.dtype:
        """The part of equal width in every row, from the first byte on."""
        fields: list[tuple[str, Any]] = [("event", ">i8"), ("known", ">i8"), ("learned", ">i8"), ("schema", "S4")]
        fields.append(("nulls", "u1", (self.bitmap,)))  # type: ignore[arg-type]
        fields += [(f"f{place}", _FIXED[self.features[place].dtype]) for place in self.fixed]
        fields += [(f"n{place}", "<u4") for place in self.others]
        return np.dtype(fields)

    @cached_property
    def row(self) -> struct.Struct:
        kinds = {"<i4": "i", "<i8": "q", "<f8": "d", "<f4": "f", "<u1": "B"}
        values = "".join(kinds[_FIXED[self.features[place].dtype]] for place in self.fixed)
        return struct.Struct(f"<4s{self.bitmap}s{values}{'I' * len(self.others)}")

    def decode(self, raw: Sequence[bytes | None], wanted: Sequence[int]) -> tuple[list[int | None], list[list[Any]]]:
        """Event times, and the columns of the wanted features (by position). A missing row is None everywhere.

        Raises WrongValueError if a row is not of this schema; the caller then decodes row by row.
        """
        if None in raw:
            return self._decode_with_gaps(raw, wanted)
        if len(raw) < 8:
            return self._decode_rows(raw, wanted)
        return self._decode_together(raw, wanted)  # type: ignore[arg-type]

    def _decode_together(self, raw: Sequence[bytes], wanted: Sequence[int]) -> tuple[list[Any], list[list[Any]]]:
        size = self.record.itemsize
        joined = b"".join([item[:size] for item in raw] if self.others else raw)
        if len(joined) != len(raw) * size:
            raise WrongValueError("the packed value has another length")
        table = np.frombuffer(joined, dtype=self.record)
        if joined[24:28] != self.digest or not (table["schema"] == table["schema"][0]).all():
            raise WrongValueError("the packed value was written under another definition")
        nulls = table["nulls"] if table["nulls"].any() else None
        ends = self._ends(raw, table)
        columns = []
        for place in wanted:
            dtype = self.features[place].dtype
            if place in ends:
                values = [_text(dtype, item[a:b]) for item, a, b in zip(raw, *ends[place], strict=True)]
            else:
                values = _PLAIN[dtype](table[f"f{place}"])
            columns.append(values if nulls is None else _with_nulls(values, nulls[:, place >> 3] >> (place & 7) & 1))
        return table["event"].tolist(), columns

    def _ends(self, raw: Sequence[bytes], table: np.ndarray) -> dict[int, tuple[list[int], list[int]]]:
        """Where each text begins and ends in each row."""
        found: dict[int, tuple[list[int], list[int]]] = {}
        if self.others:
            start = np.full(len(raw), self.record.itemsize, dtype=np.int64)
            for place in self.others:
                end = start + table[f"n{place}"]
                found[place] = (start.tolist(), end.tolist())
                start = end
            if start.tolist() != list(map(len, raw)):
                raise WrongValueError("the packed value has another length")
        return found

    def _decode_rows(self, raw: Sequence[Any], wanted: Sequence[int]) -> tuple[list[Any], list[list[Any]]]:
        events, columns = [], [[] for _ in wanted]
        for item in raw:
            event, values = self.decode_row(item)
            events.append(event)
            for column, place in zip(columns, wanted, strict=True):
                column.append(values[place])
        return events, columns

    def _decode_with_gaps(self, raw: Sequence[Any], wanted: Sequence[int]) -> tuple[list[Any], list[list[Any]]]:
        places = [place for place, item in enumerate(raw) if item is not None]
        events: list[int | None] = [None] * len(raw)
        columns: list[list[Any]] = [[None] * len(raw) for _ in wanted]
        if places:
            found, present = self.decode([raw[place] for place in places], wanted)
            for at, place in enumerate(places):
                events[place] = found[at]
                for column, values in zip(columns, present, strict=True):
                    column[place] = values[at]
        return events, columns

    def decode_row(self, raw: bytes) -> tuple[int, list[Any]]:
        """Event time and all features of one row. Raises WrongValueError."""
        try:
            event = _INSTANTS.unpack_from(raw, 0)[0]
            digest, nulls, *found = self.row.unpack_from(raw, 24)
        except struct.error:
            raise WrongValueError("the packed value is cut off") from None
        position = self.record.itemsize
        if digest != self.digest:
            raise WrongValueError("the packed value was written under another definition")
        if position + sum(found[len(self.fixed) :]) != len(raw):
            raise WrongValueError("the packed value has another length")
        values: list[Any] = [None] * len(self.features)
        for place, item in zip(self.fixed + self.others, found, strict=True):
            dtype, there = self.features[place].dtype, not nulls[place >> 3] >> (place & 7) & 1
            if dtype in _FIXED:
                if there:
                    values[place] = _ONE[dtype](item) if dtype in _ONE else item
                continue
            if there:
                values[place] = _text(dtype, raw[position : position + item])
            position += item
        return event, values


def packed_pieces(view: View, frame: pl.DataFrame) -> list[Piece]:
    """A view's rows in this layout, without their instants, each after its length (>u4)."""
    schema = PackedSchema(view.features)
    columns = [as_declared(feature.dtype, frame[feature.name]) for feature in view.features]
    pieces: list[Piece] = [constant(schema.digest), *_null_bits(columns, frame.height)]
    for place in schema.fixed:
        dtype = view.features[place].dtype
        pieces.append(numbers(_numbers_of(dtype, columns[place]), _FIXED[dtype]))
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
    return (column.fill_null(False) if dtype is ValueType.BOOL else column.fill_null(0)).to_numpy()


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


def _text(dtype: ValueType, raw: bytes) -> Any:
    if dtype is ValueType.BYTES:
        return raw
    if dtype is not ValueType.STRING:
        return decode_value(dtype, raw)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise WrongValueError(str(error)) from error


def _with_nulls(values: list[Any], missing: np.ndarray) -> list[Any]:
    if not missing.any():
        return values
    return [None if gone else value for value, gone in zip(values, missing.tolist(), strict=True)]


_ONE: dict[ValueType, Callable[[Any], Any]] = {
    ValueType.BOOL: bool,
    ValueType.UNIX_TIMESTAMP: instant_of_micros,
}
_PLAIN: dict[ValueType, Callable[[np.ndarray], list[Any]]] = {
    **dict.fromkeys(_FIXED, lambda column: column.tolist()),
    ValueType.BOOL: lambda column: column.astype(bool).tolist(),
    ValueType.UNIX_TIMESTAMP: lambda column: [instant_of_micros(at) for at in column.tolist()],
}
