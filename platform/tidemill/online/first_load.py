"""The first load of a view: plain HSETs, sent ahead without looking, for when nobody else writes the view.

What it leaves is what the newest-wins script would have left (see `writer`), for less work in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.bulk_strings import bulk, bulk_pieces, key_bulk_pieces, without_prefix
from tidemill.online.columns import Piece, constant, feature_pieces, join_rows, timestamps
from tidemill.online.keys import hash_field, known_field, packed_field, time_field
from tidemill.online.packed import packed_pieces


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """What becomes of a key's expiry: so many seconds from now, or taken away (`seconds` is None)."""

    seconds: int | None

    @property
    def head(self) -> bytes:
        return b"*2\r\n$7\r\nPERSIST\r\n" if self.seconds is None else b"*3\r\n$6\r\nEXPIRE\r\n"

    @property
    def tail(self) -> bytes:
        return b"" if self.seconds is None else bulk(self.seconds)


def load_commands(
    catalog: Catalog,
    view: View,
    frame: pl.DataFrame,
    *,
    event: np.ndarray,
    instants: list[Piece],
    layout: str,
    lifetime: Lifetime | None,
) -> tuple[bytes, int]:
    """The commands that write these rows, and how many replies come back.

    `instants` are the rows' event, known and learned time as `writer` stores them; without a `lifetime` the keys have
    no expiry and need none.
    """
    key = key_bulk_pieces(catalog, view, frame)
    fields = _packed_fields(view, frame, instants) if layout == "packed" else _fields(view, frame, event, instants)
    count = 4 if layout == "packed" else 2 * (len(view.features) + 2) + 2
    pieces: list[Piece] = [constant(b"*%d\r\n$4\r\nHSET\r\n" % count), *key, *fields]
    if lifetime is None:
        return join_rows(pieces, frame.height)[0].tobytes(), frame.height
    pieces += [constant(lifetime.head), *key, *([constant(lifetime.tail)] if lifetime.tail else [])]
    return join_rows(pieces, frame.height)[0].tobytes(), 2 * frame.height


def _fields(view: View, frame: pl.DataFrame, event: np.ndarray, instants: list[Piece]) -> list[Piece]:
    rows = frame.height
    pieces: list[Piece] = [constant(bulk(time_field(view.name)))]
    pieces += bulk_pieces(without_prefix([timestamps(event)], 1), rows)
    pieces += [constant(bulk(known_field(view.name))), *bulk_pieces(instants, rows)]
    for feature in view.features:
        value, spelled = feature_pieces(feature.dtype, frame[feature.name])
        pieces.append(constant(bulk(hash_field(view.name, feature.name))))
        pieces += bulk_pieces(without_prefix(value, 1 if spelled.startswith("B") else 4), rows)
    return pieces


def _packed_fields(view: View, frame: pl.DataFrame, instants: list[Piece]) -> list[Piece]:
    value = without_prefix(packed_pieces(view, frame), 4)
    return [constant(bulk(packed_field(view.name))), *bulk_pieces([*instants, *value], frame.height)]
