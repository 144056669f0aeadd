"""Entities that are not in Redis yet, created whole.

`RESTORE` puts the finished image of a hash in place without looking at its fields, and only where the key is free: one
step that costs Redis a quarter of writing the fields, and that no other writer can come between. Where the key is there
by now, because another view or a push created it, it answers BUSYKEY and changes nothing; such a row is compared.

The image is a list of strings as every Redis since 2.6 reads it: a field, its value, the next field. A string is the
length of the one before it, its own length, its bytes. https://github.com/redis/redis/blob/6.2/src/ziplist.c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.bulk_strings import bulk, key_bulk_pieces
from tidemill.online.columns import feature_pieces, timestamps
from tidemill.online.crc64 import LONGEST, checksums
from tidemill.online.keys import hash_field, known_field, packed_field, time_field
from tidemill.online.packed import PackedSchema, packed_pieces
from tidemill.online.pieces import Narrow, Piece, chosen, closed_up, constant, fill_matrix, numbers, total_length
from tidemill.online.resp import Sendable

FIXED_END = 39
"""Bytes of an image from the first of the row's three instants on, in Feast's layout."""

_HASH = b"\x0d"
_VERSION = b"\x06\x00"
_SHORTEST = 63  # bytes of a string whose length takes one byte
_MOST_FIELDS = 250
_PIECE_BYTES = 64_000
_FRAME = 11  # the list's own bytes beside its strings


@dataclass(frozen=True, kw_only=True)
class _Field:
    """A field of the hash. `value` begins with how long it is, in one byte or two."""

    name: bytes
    value: list[Piece]

    @property
    def is_fixed(self) -> bool:
        return all(piece.lengths is None for piece in self.value)


def creations(
    catalog: Catalog,
    view: View,
    frame: pl.DataFrame,
    *,
    event: np.ndarray,
    instants: list[Piece],
    layout: str,
    expiry: int | None,
) -> list[tuple[Sendable, int]] | None:
    """The commands that create these rows, in pieces with how many replies each gets: one for each row.

    None where a value is too long for such an image. `instants` are the rows' event, known and learned time as `writer`
    stores them; `expiry` in seconds.
    """
    fields = _packed_field(view, frame, instants) if layout == "packed" else _fields(view, frame, event, instants)
    key = _narrow(closed_up(key_bulk_pieces(catalog, view, frame)))
    found = None if fields is None or key is None else _image(fields, frame.height)
    if found is None or key is None:
        return None
    length, image = found
    head = [constant(b"*4\r\n$7\r\nRESTORE\r\n"), *key, constant(bulk((expiry or 0) * 1_000)), length]
    return _cut(*_checked_rows(head, image, frame.height))


def images(
    view: View, frame: pl.DataFrame, *, event: np.ndarray, instants: list[Piece]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The rows' images in Feast's layout as bulk strings, one after the other, and where each begins.

    None where a value is too long. `event` and `instants` as for `creations`.
    """
    fields = _fields(view, frame, event, instants)
    found = None if fields is None else _image(fields, frame.height)
    if found is None:
        return None
    length, image = found
    return _checked_rows([length], image, frame.height)


def _checked_rows(head: list[Narrow], image: list[Narrow], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """All commands, and where each begins. The checksum stands behind the image."""
    space = constant(bytes(8))
    matrix, used, lengths = fill_matrix([*head, *image, space, constant(b"\r\n")], rows)
    first, end = sum(piece.width for piece in head), matrix.shape[1] - 2
    found = checksums(matrix[:, first : end - 8], image)
    matrix[:, end - 8 : end] = found.astype("<u8").view(np.uint8).reshape(-1, 8)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    return (matrix.reshape(-1) if used is None else matrix[used]), starts


def _cut(flat: np.ndarray, starts: np.ndarray) -> list[tuple[Sendable, int]]:
    rows = len(starts) - 1
    together = max(1, _PIECE_BYTES * rows // max(1, len(flat)))
    return [
        (flat[starts[first] : starts[min(first + together, rows)]].data, min(together, rows - first))
        for first in range(0, rows, together)
    ]


def _fields(view: View, frame: pl.DataFrame, event: np.ndarray, instants: list[Piece]) -> list[_Field] | None:
    """Feast's layout. None where a value takes more than a byte to say its length."""
    found = [
        _Field(name=time_field(view.name), value=[timestamps(event)]),
    ]
    for feature in view.features:
        value, spelled = feature_pieces(feature.dtype, frame[feature.name])
        if spelled != "Bc0":
            return None
        found.append(_Field(name=hash_field(view.name, feature.name), value=value))
    found.sort(key=lambda field: field.is_fixed)  # values equally long in all rows come last, where bytes are cheap
    found.append(_Field(name=known_field(view.name), value=[constant(bytes((28,))), *instants, definition_piece(view)]))
    longest = max(int(total_length(field.value, frame.height).max(initial=0)) for field in found)
    fits = longest <= 1 + _SHORTEST and len(found) <= _MOST_FIELDS
    return found if fits else None


def _packed_field(view: View, frame: pl.DataFrame, instants: list[Piece]) -> list[_Field]:
    value = [*instants, *packed_pieces(view, frame)[1:]]
    length = numbers(0x4000 | total_length(value, frame.height), ">u2")  # 14 bits, said to be so by the first two
    return [_Field(name=packed_field(view.name), value=[length, *value])]


def definition_piece(view: View) -> Narrow:
    """Which features the writer of a row's instants knew the view to have; it is stored behind them."""
    return constant(PackedSchema(view.features).digest)


def _image(fields: Sequence[_Field], rows: int) -> tuple[Narrow, list[Narrow]] | None:
    """The length of each row's hash as a bulk string's, and the hash up to its version. None where one is too long."""
    before: Piece = constant(b"\0")
    strings: list[Piece] = []
    entry = np.zeros(rows, dtype=np.int64)
    for field in fields:
        name = field.name
        if len(name) > _SHORTEST:
            return None
        strings += [before, constant(bytes((len(name),)) + name + bytes((len(name) + 2,))), *field.value]
        entry = total_length(field.value, rows) + 1
        before = constant(bytes((int(entry[0]) & 0xFF,))) if field.is_fixed and rows else numbers(entry & 0xFF, "u1")
    size = total_length(strings, rows) + _FRAME
    head: list[Piece] = [
        constant(_HASH),
        numbers(0x4000 | size, ">u2"),
        numbers(size, "<u4"),
        numbers(size - 1 - entry, "<u4"),
        constant((2 * len(fields)).to_bytes(2, "little")),
    ]
    image = _narrow(closed_up([*head, *strings, constant(b"\xff" + _VERSION)]))
    if image is None:
        return None
    sizes, index = np.unique(total_length(image, rows) + 8, return_inverse=True)
    if int(sizes.max(initial=0)) > LONGEST:
        return None
    return chosen([b"$%d\r\n" % length for length in sizes], index), image


def _narrow(pieces: Sequence[Piece]) -> list[Narrow] | None:
    found = [piece for piece in pieces if isinstance(piece, Narrow)]
    return found if len(found) == len(pieces) else None
