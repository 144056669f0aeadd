"""Views whose entities are the same share one Redis hash: one HMGET for each row, one decoding for all of them.

Features lie in fields of their own, or all of a view in one field (the packed layout); what is decoded is the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from tidemill.definitions.catalog import Catalog, Projection
from tidemill.online.decoding import FieldDecoder, FieldType, WrongValues
from tidemill.online.key_columns import KeyColumns, Row
from tidemill.online.keys import KeyLayout, hash_field, packed_field, packer_between, time_field
from tidemill.online.packed_reads import PackedDecoder
from tidemill.online.reply_columns import GroupColumns
from tidemill.online.row_reply import RowReply
from tidemill.online.table_reply import TableReply
from tidemill.online.view_reads import ViewColumns, ViewRead
from tidemill.online.wanted import is_tiled

_LONGEST_KEPT = 256


class HashGroup:
    """What is read of one kind of hash. Complete after `close`."""

    def __init__(self, keys: KeyColumns) -> None:
        self.keys = keys
        self.views: list[ViewRead] = []

    def close(self, layout: str, wrong: WrongValues) -> None:
        """Prepare the bytes around a key, and the decoding of what comes back."""
        start = 0
        for view in self.views:
            view.start, start = start, start + len(view.features) + 1
        fields, self.decoder = (_packed if layout == "packed" else _plain)(self.views, wrong)
        self.fields = len(fields)
        self._before = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2)
        self._after = self.keys.tail + b"\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(raw), raw) for raw in fields)
        self._around = len(self.keys.head) + len(self.keys.tail)
        self._prefixes: dict[int, bytes] = {}
        self.command = self._command_of_row()
        self.glance = RowReply(self.decoder.types).read if isinstance(self.decoder, FieldDecoder) else None
        self.table = self._table()

    def _command_of_row(self) -> Callable[[Row], bytes | None]:
        """A function that makes the HMGET for a row; None where a key is null. It raises InputError like
        `ReadPlan.prepare`."""
        layout = self.keys.layout
        if layout.whole_number is None:
            return self._command_of_any_row
        name = self.keys.columns[0]
        pack = packer_between(layout.whole_number, self._prefix(len(layout.parts([[0]])[0] or b"")), self._after)

        def command(row: Row) -> bytes | None:
            value = row.get(name)
            if type(value) is int:
                try:
                    return pack(value)
                except struct.error:  # too large a number
                    pass
            return self._command_of_any_row(row)

        return command

    def _command_of_any_row(self, row: Row) -> bytes | None:
        part = self.keys.of_row(row)
        return None if part is None else self._prefix(len(part)) + part + self._after

    def commands(self, parts: Sequence[bytes]) -> bytes:
        """One HMGET for each key."""
        after, sizes = self._after, set(map(len, parts))
        if len(sizes) == 1:
            prefix = self._prefix(sizes.pop())
            return prefix + (after + prefix).join(parts) + after
        pieces: list[bytes] = []
        for part in parts:
            pieces += (self._prefix(len(part)), part, after)
        return b"".join(pieces)

    def _prefix(self, size: int) -> bytes:
        prefix = self._prefixes.get(size)
        if prefix is None:
            prefix = b"%s%d\r\n%s" % (self._before, size + self._around, self.keys.head)
            if size < _LONGEST_KEPT:
                self._prefixes[size] = prefix
        return prefix

    def columns_of(self, row: Sequence[Any]) -> GroupColumns:
        """The columns of one row, from the values that `decode_row` of the decoder, or the glance, has found."""
        columns = [[row[place]] for place in self.decoder.row_places]
        return GroupColumns(columns, without_null=[None] not in columns)

    def _table(self) -> Callable[..., GroupColumns | None] | None:
        """What reads many replies at once, its columns in the order of the command; None for packed values."""
        if not isinstance(self.decoder, FieldDecoder):
            return None
        return TableReply(self.decoder.types, self.decoder.decode_row).read

    def columns_of_table(self, table: GroupColumns) -> GroupColumns:
        """The columns of many rows, from what the table has found."""
        return GroupColumns([table.columns[place] for place in self.decoder.row_places], table.without_null)

    def decode(self, found: GroupColumns, rows: int, present: list[int] | None, at: int) -> list[ViewColumns]:
        """The answers of the views from the fields' columns. `present` tells which rows have a key, None all."""
        columns = found.columns
        if present is not None:
            columns = [spread(column, present, rows) for column in columns]
        views = [view.decode(columns, at) for view in self.views]
        if found.without_null:
            for view in views:
                view.states.complete = view.states.base is None
        return views


def hash_groups(catalog: Catalog, stored: Sequence[Projection], layout: str, wrong: WrongValues) -> list[HashGroup]:
    """The groups of all projections that are not read as tiles. Raises NotDefinedError for an unknown feature."""
    groups: dict[tuple[KeyLayout, tuple[str, ...]], HashGroup] = {}
    for projection in stored:
        view = catalog.view(projection.view)
        if is_tiled(view):
            continue
        for name in projection.features:
            view.feature(name)  # an unknown one is told by its name
        keys = KeyColumns.of(catalog, projection)
        group = groups.setdefault((keys.layout, keys.columns), HashGroup(keys))
        group.views.append(ViewRead(view, projection))
    for group in groups.values():
        group.close(layout, wrong)
    return list(groups.values())


def _plain(views: Sequence[ViewRead], wrong: WrongValues) -> tuple[list[bytes], FieldDecoder]:
    """A field for each feature, and one for the event time."""
    fields: list[bytes] = []
    types: list[tuple[str, FieldType]] = []
    for one in views:
        view = one.view
        fields += [hash_field(view.name, name) for name in one.features] + [time_field(view.name)]
        types += [(f"{view.name}:{name}", view.feature(name).dtype) for name in one.features]
        types.append((f"{view.name}:event time", None))
    decoder = FieldDecoder(types, wrong)
    return [fields[place] for place in decoder.order], decoder


def _packed(views: Sequence[ViewRead], wrong: WrongValues) -> tuple[list[bytes], PackedDecoder]:
    """One field for each view."""
    fields = [packed_field(one.view.name) for one in views]
    return fields, PackedDecoder([(one.view.name, one.view.features, one.places) for one in views], wrong)


def spread(found: Sequence[Any], present: list[int], rows: int) -> list[Any]:
    """Values of some rows at their places among all rows, None elsewhere."""
    out: list[Any] = [None] * rows
    for value, place in zip(found, present, strict=True):
        out[place] = value
    return out
