"""Reading packed values: a row by one `struct` call, the texts of many rows at once. `packed` tells how they lie."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain, cycle, pairwise
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Feature
from tidemill.definitions.types import ValueType
from tidemill.online.bulk_numbers import Raw
from tidemill.online.codec import WrongValueError, decode_value, instant_of_micros
from tidemill.online.packed import FIXED_WIDTH, PackedSchema
from tidemill.online.value_memo import WrongValues

_KINDS = {"<i4": "i", "<i8": "q", "<f8": "d", "<f4": "f", "<u1": "B"}

Columns = list[list[Any]]
"""A column for each feature asked for, and last the event times."""


class PackedReader:
    """Reads the packed values of one view. `event_slot` and `slots` tell where `read_row` leaves the event time
    (microseconds) and each feature; there are `row_width` slots."""

    def __init__(self, features: tuple[Feature, ...]) -> None:
        schema = PackedSchema(features)
        types = [feature.dtype for feature in features]
        self._digest, self._usual = schema.digest, schema.digest + bytes(schema.bitmap)
        order = schema.fixed + schema.others
        self.slots = tuple(order.index(place) + 2 for place in range(len(order)))  # after the event, schema and nulls
        self.event_slot, self.row_width = 0, len(order) + 2
        kinds = "".join(_KINDS[FIXED_WIDTH[types[place]]] for place in schema.fixed)
        row = struct.Struct(f"<8s16x{len(self._usual)}s{kinds}{'I' * len(schema.others)}")
        self._unpack, self._size = row.unpack_from, row.size
        self._first_other = 2 + len(schema.fixed)
        self._converted = [(self.slots[place], _ONE[types[place]]) for place in schema.fixed if types[place] in _ONE]
        self._others = [(self.slots[place], _decoder(types[place])) for place in schema.others]
        self._only_strings = all(types[place] is ValueType.STRING for place in schema.others)

    def read_row(self, raw: bytes) -> list[Any]:
        """One row: its features and its event time. Raises WrongValueError if it is not of this schema."""
        try:
            row = list(self._unpack(raw))
            head, position = row[1], self._size
            if head != self._usual and not head.startswith(self._digest):
                raise WrongValueError("the packed value was written under another definition")
            for slot, decode in self._others:
                start, position = position, position + row[slot]
                row[slot] = decode(raw[start:position])
        except (struct.error, UnicodeDecodeError) as error:
            raise WrongValueError(f"the packed value is cut off or damaged: {error}") from None
        if position != len(raw):
            raise WrongValueError("the packed value has another length")
        for slot, convert in self._converted:
            row[slot] = convert(row[slot])
        if head != self._usual:
            for slot in self._nulls(head):
                row[slot] = None
        row[0] = int.from_bytes(row[0], "big", signed=True)
        return row

    def read(self, raw: Sequence[bytes | None], wanted: Sequence[int]) -> tuple[Columns, bool]:
        """The wanted features (by position) of many rows, their event times, and whether it is certain that no feature
        among them is null. A missing row is None everywhere.

        Raises WrongValueError if a row is not of this schema; the caller then reads row by row.
        """
        if None in raw:
            return self._with_gaps(raw, wanted), False
        try:
            found: list[Any] = list(zip(*[self._unpack(item) for item in raw], strict=True))  # type: ignore[arg-type]
            if not found:
                return [[] for _ in range(len(wanted) + 1)], True
            if self._others:
                found[self._first_other :] = self._texts(raw, found[self._first_other :])  # type: ignore[arg-type]
            elif set(map(len, raw)) != {self._size}:  # type: ignore[arg-type]
                raise WrongValueError("the packed value has another length")
        except (struct.error, UnicodeDecodeError) as error:
            raise WrongValueError(f"the packed value is cut off or damaged: {error}") from None
        for slot, convert in self._converted:
            found[slot] = map(convert, found[slot])
        columns = [list(found[self.slots[place]]) for place in wanted]
        complete = found[1].count(self._usual) == len(raw)
        if not complete:
            self._put_nulls(found[1], wanted, columns)
        columns.append(np.frombuffer(b"".join(found[0]), ">i8").tolist())
        return columns, complete and self._only_strings

    def _texts(self, raw: Sequence[bytes], lengths: Sequence[Sequence[int]]) -> list[list[Any]]:
        """The values without a fixed width. All rows' are put one after the other and, if they are plain ASCII, decoded
        at once."""
        size, count = self._size, len(lengths)
        tails = [item[size:] for item in raw]
        ends = list(accumulate(chain.from_iterable(zip(*lengths, strict=True)), initial=0))
        if ends[count::count] != list(accumulate(map(len, tails))):
            raise WrongValueError("the packed value has another length")
        joined = b"".join(tails)
        if self._only_strings and joined.isascii():
            text = joined.decode("ascii")
            values: list[Any] = [text[start:end] for start, end in pairwise(ends)]
        else:
            decoders = cycle(decode for _, decode in self._others)
            values = [decode(joined[a:b]) for decode, (a, b) in zip(decoders, pairwise(ends), strict=False)]
        return [values[number::count] for number in range(count)]

    def _nulls(self, head: bytes) -> list[int]:
        """The slots of the features that are null."""
        nulls = int.from_bytes(head[len(self._digest) :], "little")
        return [slot for place, slot in enumerate(self.slots) if nulls >> place & 1]

    def _put_nulls(self, heads: Sequence[bytes], wanted: Sequence[int], columns: Columns) -> None:
        slots = [self.slots[place] for place in wanted]
        for row, head in enumerate(heads):
            if head == self._usual:
                continue
            if not head.startswith(self._digest):
                raise WrongValueError("the packed value was written under another definition")
            nulls = self._nulls(head)
            for slot, column in zip(slots, columns, strict=True):
                if slot in nulls:
                    column[row] = None

    def _with_gaps(self, raw: Sequence[Any], wanted: Sequence[int]) -> Columns:
        places = [place for place, item in enumerate(raw) if item is not None]
        columns: Columns = [[None] * len(raw) for _ in range(len(wanted) + 1)]
        for column, values in zip(columns, self.read([raw[place] for place in places], wanted)[0], strict=True):
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
        if not replies:
            return [[] for _ in range(self.width)], True
        columns: list[list[Any]] = []
        without_null = True
        for view, raw in zip(self._views, zip(*replies, strict=True), strict=True):
            name, reader, wanted = view
            try:
                found, certain = reader.read(raw, wanted)
            except WrongValueError:
                found, certain = reader.read([self._checked(name, reader, item) for item in raw], wanted)
            columns += found
            without_null = without_null and certain
        return columns, without_null

    decode_arrays = decode

    def _checked(self, name: str, reader: PackedReader, raw: bytes | None) -> bytes | None:
        """The packed value; None if it was written under another definition, as if it had never been written."""
        try:
            if raw is not None:
                reader.read_row(raw)
        except WrongValueError as error:
            self._wrong.add(f"{name}:packed value", error)
            return None
        return raw


def _decoder(dtype: ValueType) -> Callable[[bytes], Any]:
    """How a value without a fixed width is decoded."""
    if dtype is ValueType.STRING:
        return bytes.decode
    return bytes if dtype is ValueType.BYTES else partial(decode_value, dtype)


_ONE: dict[ValueType, Callable[[Any], Any]] = {
    ValueType.BOOL: bool,
    ValueType.UNIX_TIMESTAMP: instant_of_micros,
}
