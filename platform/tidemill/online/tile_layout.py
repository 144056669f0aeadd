"""How tiles lie in Redis: what a record holds, and what its key is called.

A *tile* is one hop of time of one entity: the partial aggregates of the events in `[index * hop, (index + 1) * hop)`.
The tiles of one entity, view and hop are a log of records of equal size sorted by tile; those of all hops lie in one
Redis string (see `tile_log`), so that a read is one GET. A record is a row of little-endian 8-byte words:

    tile | since | newest | counts and whole sums ... | float sums ... | other partials, column by column

`since` is 0, or the instant from which on the record's events count (they came before their time, within the push
horizon); such a record is merged into its tile's once its time has come. `newest` is the newest event time in it.
Where a column has no value in a tile, each word holds the identity of its merge (0, +inf, ...). A whole sum that 64
bits do not hold is the least of all numbers, whatever is added to it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Aggregation, View
from tidemill.definitions.distinct import REGISTERS
from tidemill.definitions.windows import ColumnNeeds, micros, needs_of

WORD = 8
TILE, SINCE, NEWEST = 0, 1, 2
HEADER = 3
SKETCH_WORDS = REGISTERS // WORD
GREATEST, LEAST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
_GRACE_SECONDS = 86_400
_AGES = 10 * 365 * 86_400
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ColumnWords:
    """Where the partials of one column lie in a record: the number of a word, or None where nobody asks.

    `first` and `last` are the first of three words: event time, known time, value.
    """

    needs: ColumnNeeds
    count: int
    total: int | None = None
    lowest: int | None = None
    highest: int | None = None
    spread: int | None = None
    first: int | None = None
    last: int | None = None
    distinct: int | None = None


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """The tiles of one view and hop. `longest` is the longest window on them; all in microseconds."""

    view: View
    hop: int
    longest: int
    aggregations: tuple[Aggregation, ...]
    columns: tuple[ColumnWords, ...]
    words: int

    @property
    def record_bytes(self) -> int:
        return self.words * WORD

    @property
    def capacity(self) -> int:
        """Records above which old ones are cut off: a quarter more than the longest window can hold."""
        return (self.longest // self.hop + 2) * 5 // 4 + 8

    def expiry(self, *, forever: bool = False) -> int:
        """Seconds after which the tiles of an entity without new ones are forgotten.

        The view's longest window and a hop, and a day of grace. `forever` is for projects on a simulated clock, where
        the wall clock says nothing of how old a tile is.
        """
        longest = max(micros(item.window) + micros(item.hop) for item in self.view.aggregations)
        return _AGES if forever else longest // 1_000_000 + 1 + _GRACE_SECONDS

    def oldest_tile(self, at: int) -> int:
        """The first tile that still counts at `at`."""
        return (at - self.longest) // self.hop

    @cached_property
    def shape(self) -> tuple[Any, ...]:
        """Equal for layouts whose records can be read alike, whatever their hops."""
        return (self.words, tuple(_without_name(column) for column in self.columns))

    @cached_property
    def build_shape(self) -> tuple[Any, ...]:
        """Equal for layouts whose records can be built alike: the same partials of the same columns."""
        return (self.shape, tuple(column.needs.column for column in self.columns))

    @cached_property
    def ops(self) -> str:
        """How the push script merges two records: an operation and the byte it starts at, for each partial."""
        return " ".join(_ops(self))

    @cached_property
    def digest(self) -> str:
        """Changes with whatever makes stored tiles unreadable or incomplete, so that old ones are not misread."""
        said = (_FORMAT, self.hop, self.longest, self.view.join_keys, self.view.event_id, self.view.source, self.ops)
        columns = [column.needs.column for column in self.columns]
        return hashlib.sha256(repr((said, columns)).encode()).hexdigest()[:10]


def layouts_of(view: View) -> tuple[TileLayout, ...]:
    """One layout for each hop of a windowed view, the longest hop first."""
    hops = sorted({micros(item.hop) for item in view.aggregations}, reverse=True)
    return tuple(_layout(view, hop) for hop in hops)


def project_prefix(project: str) -> str:
    """All windows of a project. The braces keep `prod` apart from `my_prod`, and a project in one slot of a cluster."""
    return f"tm:{{{project}}}:"


def view_prefix(project: str, view: str) -> str:
    return f"{project_prefix(project)}w:{view}:"


def rebuild_lock(project: str, view: str) -> str:
    """Held while a view's tiles are rebuilt; pushes to it are refused meanwhile."""
    return f"{project_prefix(project)}rebuilding:{view}"


def event_key(project: str, stream: str, event_id: str) -> str:
    """Where the ids of delivered events are remembered; the keys of sets of them start with it."""
    return f"{project_prefix(project)}e:{stream}:{event_id}"


def _layout(view: View, hop: int) -> TileLayout:
    mine = tuple(item for item in view.aggregations if micros(item.hop) == hop)
    needs = needs_of(view, mine)
    words = HEADER
    counts, totals = {}, {}
    for column in needs:
        counts[column.column], words = words, words + 1
    for whole in (True, False):
        for column in needs:
            if column.total and column.whole is whole:
                totals[column.column], words = words, words + 1
    columns = []
    for column in needs:
        placed, words = _place_others(column, counts[column.column], totals.get(column.column), words)
        columns.append(placed)
    return TileLayout(
        view=view,
        hop=hop,
        longest=max(micros(item.window) for item in mine),
        aggregations=mine,
        columns=tuple(columns),
        words=words,
    )


def _place_others(needs: ColumnNeeds, count: int, total: int | None, words: int) -> tuple[ColumnWords, int]:
    sizes = {
        "lowest": needs.lowest,
        "highest": needs.highest,
        "spread": needs.spread,
        "first": 3 * needs.first,
        "last": 3 * needs.last,
        "distinct": SKETCH_WORDS * needs.distinct,
    }
    places: dict[str, int] = {}
    for name, size in sizes.items():
        if size:
            places[name], words = words, words + int(size)
    return ColumnWords(needs=needs, count=count, total=total, **places), words


def _without_name(column: ColumnWords) -> tuple[Any, ...]:
    return (
        column.needs.whole,
        *(getattr(column, name) for name in ColumnWords.__dataclass_fields__ if name != "needs"),
    )


def _ops(layout: TileLayout) -> list[str]:
    ops = [(column.count, "i") for column in layout.columns]
    for column in layout.columns:
        number = "i" if column.needs.whole else "f"
        ops += [
            (column.total, number),
            (column.lowest, "a" if column.needs.whole else "A"),
            (column.highest, "b" if column.needs.whole else "B"),
            (column.spread, f"q:{column.count * WORD + 1}:{(column.total or 0) * WORD + 1}:{number}"),
            (column.first, "x"),
            (column.last, "y"),
            (column.distinct, "h"),
        ]
    placed = sorted((word, op) for word, op in ops if word is not None)
    return [f"{op[0]}:{word * WORD + 1}{op[1:]}" for word, op in placed]
