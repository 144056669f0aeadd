"""What a push tells Redis about one view: which entities' tiles change, and the records that are merged into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.online.tile_build import Records
from tidemill.online.tile_log import TileLog

ONE_EACH = b""
"""Said in place of the numbers of records where every entity has one in each hop."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """Records of some entities, as the script takes them, and how many tiles they touch."""

    keys: list[bytes]
    arguments: list[bytes | int]
    tiles: int


def delta_of(number: int, log: TileLog, keys: Sequence[bytes], hops: Sequence[Records], at: int) -> Delta | None:
    """The records of the hops of a view, entity by entity; None where there are none.

    Args:
        number: the view's number in the script.
        keys: the Redis key of each entity, by its code in the records.
        hops: the records of each layout of the log, sorted by code.
        at: the instant of the push, int microseconds.
    """
    codes = [records.code for records in hops]
    tiles = sum(map(len, codes))
    if not tiles:
        return None
    entities, sizes = _entities(codes)
    arguments: list[Any] = [number, len(entities), sizes]
    for layout, records in zip(log.layouts, hops, strict=True):
        arguments += [layout.oldest_tile(at), records.words.tobytes()]
    return Delta(keys=[keys[code] for code in entities], arguments=arguments, tiles=tiles)


def _entities(codes: Sequence[np.ndarray]) -> tuple[list[int], bytes]:
    """The entities in order, and how many records each has in each hop."""
    first = codes[0]
    alike = all(np.array_equal(first, other) for other in codes[1:])
    if alike and bool((first[1:] > first[:-1]).all()):
        return first.tolist(), ONE_EACH
    entities = np.unique(np.concatenate(codes))
    sizes = [np.bincount(np.searchsorted(entities, one), minlength=len(entities)) for one in codes]
    return entities.tolist(), np.stack(sizes, axis=1).astype("<u4").tobytes()
