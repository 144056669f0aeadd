"""Reading packed values: one row by one `struct` call, many rows as one table. How they lie is told in `packed`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, cycle, pairwise
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Feature
from tidemill.definitions.types import ValueType
from tidemill.online.bulk_numbers import Raw
from tidemill.online.codec import WrongValueError, decode_value, instant_of_micros
from tidemill.online.packed import FIXED_WIDTH, PackedSchema
from tidemill.online.value_memo import WrongValues

_INSTANTS_BYTES = 24
_AS_TABLE = 12  # rows; fewer are faster one by one
_KINDS = {"<i4": "i", "<i8": "q", "<f8": "d", "<f4": "f", "<u1": "B"}


Columns = list[list[Any]]
"""A column for each feature asked for, and last the event times."""


class PackedReader:
    """Reads the packed values of one view. `event_slot` and `slots` tell where `read_row` leaves the event time
    (microseconds) and each feature; there are `row_width` slots."""

    def __init__(self, features: tuple[Feature, ...]) -> None:
        schema = PackedSchema(features)
        self._types = [feature.dtype for feature in features]
        self._digest, self._bitmap = schema.digest, schema.bitmap
        self._fixed, self._others = schema.fixed, schema.others
        order = schema.fixed + schema.others
        self.slots = tuple(order.index(place) + 1 for place in range(len(order)))  # the schema and nulls come first
        self.event_slot, self.row_width = len(order) + 1, len(order) + 2
        self._usual = schema.digest + bytes(schema.bitmap)
        kinds = "".join(_KINDS[FIXED_WIDTH[self._types[place]]] for place in schema.fixed)
        row = struct.Struct(f"<{len(self._usual)}s{kinds}{'I' * len(schema.others)}")
        self._unpack, self._size = row.unpack_from, _INSTANTS_BYTES + row.size
        self._converted = [
            (self.slots[place], _ONE[self._types[place]]) for place in schema.fixed if self._types[place] in _ONE
        ]
        self._others_of_row = [(self.slots[place], _other(self._types[place])) for place in schema.others]
        self._only_strings = all(self._types[place] is ValueType.STRING for place in schema.others)
        self._schema, self._record = int.from_bytes(schema.digest, "little"), self._record_of()

    def read_row(self, raw: bytes) -> list[Any]:
        """One row: its features and its event time. Raises WrongValueError if it is not of this schema."""
        try:
            row = list(self._unpack(raw, _INSTANTS_BYTES))
            head, position = row[0], self._size
            if head != self._usual and not head.startswith(self._digest):
                raise WrongValueError("the packed value was written under another definition")
            for slot, decode in self._others_of_row:
                start, position = position, position + row[slot]
                row[slot] = decode(raw[start:position])
        except (struct.error, UnicodeDecodeError) as error:
            raise WrongValueError(f"the packed value is cut off or damaged: {error}") from None
        if position != len(raw):
            raise WrongValueError("the packed value has another length")
        for slot, convert in self._converted:
            row[slot] = convert(row[slot])
        if head != self._usual:
            self._put_nulls(head, row)
        row.append(int.from_bytes(raw[:8], "big", signed=True))
        return row

    def read(self, raw: Sequence[bytes | None], wanted: Sequence[int]) -> Columns:
        """The wanted features (by position) of many rows, and their event times. A missing row is None everywhere.

        Raises WrongValueError if a row is not of this schema; the caller then reads row by row.
        """
        if None in raw:
            return self._with_gaps(raw, wanted)
        if len(raw) < _AS_TABLE:
            rows = [self.read_row(item) for item in raw]  # type: ignore[arg-type]
            columns = list(map(list, zip(*rows, strict=True))) or [[]] * self.row_width
            return [*(columns[self.slots[place]] for place in wanted), columns[self.event_slot]]
        return self._as_table(raw, wanted)  # type: ignore[arg-type]

    def _record_of(self) -> np.dtype:
        """The part of equal width in every row, from the first byte on."""
        fields: list[Any] = [("event", ">i8"), ("others", "V16"), ("schema", "<u4"), ("nulls", "u1", (self._bitmap,))]
        fields += [(f"f{place}", FIXED_WIDTH[self._types[place]]) for place in self._fixed]
        fields.append(("lengths", "<u4", (len(self._others),)))
        return np.dtype(fields)

    def _put_nulls(self, head: bytes, row: list[Any]) -> None:
        nulls = int.from_bytes(head[len(self._digest) :], "little")
        for place, slot in enumerate(self.slots):
            if nulls >> place & 1:
                row[slot] = None

    def _as_table(self, raw: Sequence[bytes], wanted: Sequence[int]) -> Columns:
        size, rows = self._size, len(raw)
        joined = b"".join([item[:size] for item in raw] if self._others else raw)
        if len(joined) != rows * size:
            raise WrongValueError("the packed value has another length")
        table = np.frombuffer(joined, dtype=self._record)
        if (table["schema"] != self._schema).any():
            raise WrongValueError("the packed value was written under another definition")
        texts = self._texts_by_place(raw, table["lengths"]) if self._others else {}
        columns = [
            texts[place] if place in texts else _column(self._types[place], table[f"f{place}"]) for place in wanted
        ]
        if table["nulls"].any():
            nulls = table["nulls"]
            columns = [
                _with_nulls(column, nulls[:, place >> 3] >> (place & 7) & 1)
                for place, column in zip(wanted, columns, strict=True)
            ]
        return [*columns, table["event"].tolist()]

    def _texts_by_place(self, raw: Sequence[bytes], lengths: np.ndarray) -> dict[int, list[Any]]:
        """All rows' texts are put one after the other and, if they are plain ASCII, decoded at once."""
        size, count = self._size, len(self._others)
        tails = [item[size:] for item in raw]
        joined = b"".join(tails)
        ends = np.cumsum(lengths.ravel(), dtype=np.int64).tolist()
        if ends[count - 1 :: count] != list(accumulate(map(len, tails))):
            raise WrongValueError("the packed value has another length")
        if self._only_strings and joined.isascii():
            text = joined.decode("ascii")
            values: list[Any] = [text[start:end] for start, end in pairwise([0, *ends])]
        else:
            values = self._one_by_one(joined, ends)
        return {place: values[number::count] for number, place in enumerate(self._others)}

    def _one_by_one(self, joined: bytes, ends: Sequence[int]) -> list[Any]:
        spans, decoders = pairwise([0, *ends]), cycle(decode for _, decode in self._others_of_row)
        try:
            return [decode(joined[start:end]) for decode, (start, end) in zip(decoders, spans, strict=False)]
        except UnicodeDecodeError as error:
            raise WrongValueError(str(error)) from None

    def _with_gaps(self, raw: Sequence[Any], wanted: Sequence[int]) -> Columns:
        places = [place for place, item in enumerate(raw) if item is not None]
        columns: Columns = [[None] * len(raw) for _ in range(len(wanted) + 1)]
        if places:
            for column, values in zip(columns, self.read([raw[place] for place in places], wanted), strict=True):
                for place, value in zip(places, values, strict=True):
                    column[place] = value
        return columns


class PackedDecoder:
    """Decodes the replies to one HMGET of packed values, like `FieldDecoder` the fields of plain ones: a column for
    each feature and one for the event time, view by view.

    Args:
        views: name, features and wanted features (by position) of each view, in the order of the command.
        wrong: where values are counted that are of no use.
    """

    def __init__(self, views: Sequence[tuple[str, tuple[Feature, ...], Sequence[int]]], wrong: WrongValues) -> None:
        self._views = [(name, PackedReader(features), wanted) for name, features, wanted in views]
        self._reads = [reader.read_row for _, reader, _ in self._views]
        self._wrong = wrong
        places, start = [], 0
        for _, reader, wanted in self._views:
            places += [start + reader.slots[place] for place in wanted]
            places.append(start + reader.event_slot)
            start += reader.row_width
        self.row_places = places
        self.width, self.row_width = len(places), start

    def decode_row(self, reply: Raw) -> list[Any]:
        """The values, in the order of `row_places`. Raises WrongValueError if not every view is there and right."""
        row: list[Any] = []
        for read, raw in zip(self._reads, reply, strict=True):
            if raw is None:
                raise WrongValueError("the row was never written")
            row += read(raw)
        return row

    def decode(self, replies: Sequence[Raw]) -> tuple[list[list[Any]], bool]:
        """Columns of values, and whether it is certain that no feature among them is null."""
        found: list[list[Any]] = []
        if not replies:
            return [[] for _ in range(self.width)], True
        for view, raw in zip(self._views, zip(*replies, strict=True), strict=True):
            name, reader, wanted = view
            try:
                found += reader.read(raw, wanted)
            except WrongValueError:
                found += reader.read([self._checked(name, reader, item) for item in raw], wanted)
        return found, all(all(column) or None not in column for column in found)

    def _checked(self, name: str, reader: PackedReader, raw: bytes | None) -> bytes | None:
        """The packed value; None if it was written under another definition, as if it had never been written."""
        try:
            if raw is not None:
                reader.read_row(raw)
        except WrongValueError as error:
            self._wrong.add(f"{name}:packed value", error)
            return None
        return raw


def _other(dtype: ValueType) -> Callable[[bytes], Any]:
    """How a value without a fixed width is decoded."""
    if dtype is ValueType.STRING:
        return bytes.decode
    return bytes if dtype is ValueType.BYTES else partial(decode_value, dtype)


def _column(dtype: ValueType, numbers: np.ndarray) -> list[Any]:
    if dtype is ValueType.BOOL:
        return numbers.astype(bool).tolist()
    if dtype is ValueType.UNIX_TIMESTAMP:
        return [instant_of_micros(at) for at in numbers.tolist()]
    return numbers.tolist()


def _with_nulls(values: list[Any], missing: np.ndarray) -> list[Any]:
    if not missing.any():
        return values
    return [None if gone else value for value, gone in zip(values, missing.tolist(), strict=True)]


_ONE: dict[ValueType, Callable[[Any], Any]] = {
    ValueType.BOOL: bool,
    ValueType.UNIX_TIMESTAMP: instant_of_micros,
}
