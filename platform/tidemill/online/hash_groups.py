"""Views whose entities are the same share one Redis hash: one HMGET for each row, one decoding for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidemill.definitions.catalog import Catalog, Projection
from tidemill.online.decoding import FieldDecoder, FieldType, WrongValues
from tidemill.online.key_columns import KeyColumns
from tidemill.online.keys import KeyLayout
from tidemill.online.reply_columns import GroupColumns
from tidemill.online.view_reads import FeastViewRead, PackedViewRead, ViewColumns, ViewRead
from tidemill.online.wanted import is_tiled

_LONGEST_KEPT = 256


class HashGroup:
    """What is read of one kind of hash. Complete after `close`."""

    def __init__(self, keys: KeyColumns) -> None:
        self.keys = keys
        self.fields: list[tuple[bytes, str, FieldType]] = []
        self.views: list[ViewRead] = []

    def add(self, view: ViewRead) -> None:
        view.start = len(self.fields)
        self.fields += view.fields()
        self.views.append(view)

    def close(self, wrong: WrongValues) -> None:
        """Prepare the bytes around a key, and the decoding of what comes back."""
        self.decoder = FieldDecoder([(name, dtype) for _, name, dtype in self.fields], wrong)
        self._before = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(self.fields) + 2)
        fields = b"".join(b"$%d\r\n%s\r\n" % (len(raw), raw) for raw, _, _ in self.fields)
        self._after = self.keys.tail + b"\r\n" + fields
        self._around = len(self.keys.head) + len(self.keys.tail)
        self._prefixes: dict[int, bytes] = {}

    def command(self, part: bytes) -> bytes:
        """One HMGET for the key of which `part` is what differs."""
        return self._prefix(len(part)) + part + self._after

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

    def decode(self, found: GroupColumns, rows: int, present: list[int] | None, at: int) -> list[ViewColumns]:
        """The answers of the views from the fields' columns. `present` tells which rows have a key, None all."""
        columns = found.columns
        if present is not None:
            columns = [spread(column, present, rows, 1) for column in columns]
        views = [view.decode(columns, at) for view in self.views]
        if found.without_null:
            for view in views:
                view.states.complete = view.states.base is None
        return views


def hash_groups(catalog: Catalog, stored: Sequence[Projection], layout: str, wrong: WrongValues) -> list[HashGroup]:
    """The groups of all projections that are not read as tiles. Raises NotDefinedError for an unknown feature."""
    groups: dict[tuple[KeyLayout, tuple[str, ...]], HashGroup] = {}
    kind = PackedViewRead if layout == "packed" else FeastViewRead
    for projection in stored:
        view = catalog.view(projection.view)
        if is_tiled(view):
            continue
        for name in projection.features:
            view.feature(name)  # an unknown one is told by its name
        keys = KeyColumns.of(catalog, projection)
        group = groups.setdefault((keys.layout, keys.columns), HashGroup(keys))
        group.add(kind(view, projection, wrong))
    for group in groups.values():
        group.close(wrong)
    return list(groups.values())


def spread(found: Sequence[Any], present: list[int], rows: int, width: int) -> list[Any]:
    """Replies of some rows at their places among all rows, None elsewhere."""
    out: list[Any] = [None] * (rows * width)
    for at, place in enumerate(present):
        out[place * width : (place + 1) * width] = found[at * width : (at + 1) * width]
    return out
