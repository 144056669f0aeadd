"""Columns as bulk strings of Redis's protocol: `$length`, the bytes, a line end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.columns import key_pieces
from tidemill.online.keys import key_layout
from tidemill.online.pieces import Piece, chosen, constant, total_length

_END = constant(b"\r\n")


def bulk(value: Any) -> bytes:
    """One bulk string; anything but bytes is written as text."""
    raw = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%s\r\n" % (len(raw), raw)


def bulk_pieces(pieces: Sequence[Piece], rows: int) -> list[Piece]:
    """The pieces side by side as one bulk string in each row."""
    sizes, index = np.unique(total_length(pieces, rows), return_inverse=True)
    return [chosen([b"$%d\r\n" % size for size in sizes], index), *pieces, _END]


def key_bulk_pieces(catalog: Catalog, view: View, frame: pl.DataFrame) -> list[Piece]:
    """Each row's Redis key."""
    layout = key_layout(catalog, view)
    if not view.join_keys:
        return [constant(bulk(layout.encode([""])))]
    inner: list[Piece] = [constant(layout.head)]
    for place in layout.order:
        inner += key_pieces(layout.types[place], frame[layout.join_keys[place]])
    return bulk_pieces([*inner, constant(layout.tail)], frame.height)
