"""The tiles of one row: reduced by as few calls of an array library as there are columns to reduce.

For so few tiles a call costs more than what it works on. The first tile that counts in a window is looked for by
bisection, the plain functions are finished in Python, and what is asked of the instant is asked again only when a
window's trailing edge has moved. The sums are those of `tile_reduce`, of the same tiles in the same order, and so the
same to the last bit.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from tidemill.definitions.catalog import AggregationFunction
from tidemill.definitions.types import ValueType
from tidemill.online.tile_layout import SINCE
from tidemill.online.tile_log import Bytes
from tidemill.online.tile_reduce import adds_up
from tidemill.online.tiles import TileGroup

_WORD, _REAL = np.dtype("<i8"), np.dtype("<f8")
_FUNCTION = AggregationFunction
_COMBINES = {_FUNCTION.MIN: np.minimum, _FUNCTION.MAX: np.maximum}
_PLAIN = frozenset({_FUNCTION.COUNT, _FUNCTION.SUM, _FUNCTION.MEAN, *_COMBINES})
_AS_STORED = frozenset({ValueType.INT64, ValueType.DOUBLE})

Finish = Callable[[list[Any], list[int]], list[Any]]
"""What a function makes of its partials and of how many values there are, slot by slot."""


def row_reader(group: TileGroup, places: Sequence[int]) -> QuickGroup | AnyGroup:
    """Reads a group for one row. `places` are the parts' numbers among all hops of all logs."""
    plain = all(one.function in _PLAIN and one.dtype in _AS_STORED for one in group.readings)
    return (QuickGroup if plain and sys.byteorder == "little" else AnyGroup)(group, places)


class AnyGroup:
    """Whatever is asked of the tiles, by the reduction of many rows."""

    def __init__(self, group: TileGroup, places: Sequence[int]) -> None:
        self._group, self._places = group, places

    def read(self, records: Sequence[Bytes], sizes: Sequence[int], at: int) -> list[Any] | None:
        """Of each reading a value for each part; None where some record's time comes later than others' of its tile,
        or a sum might be too large. `records` and `sizes` as `TileLog.take` gives them."""
        del sizes
        return self._group.read_one([b"".join(records[2 * place : 2 * place + 2]) for place in self._places], at)


class QuickGroup:
    """Counts, sums, means and extremes, declared as what the tiles hold."""

    def __init__(self, group: TileGroup, places: Sequence[int]) -> None:
        layout = group.layout
        self._words, self._nothing = layout.words, bytes(layout.record_bytes)
        self._records = itemgetter(*(number for place in places for number in (2 * place, 2 * place + 1)))
        self._sizes = itemgetter(*places, places[0])
        edges = [(window, part.layout.hop) for part in group.parts for window in part.windows]
        self._edges = list(dict.fromkeys(edges))
        self._numbers = [self._edges.index(edge) for edge in edges]
        self._oldest: tuple[list[int], list[int]] = ([], [])
        self._windows = group.windows
        self._slots = _slots_of(len(group.parts), group.windows)
        kinds = list(dict.fromkeys((one.function, one.column.count, one.dtype) for one in group.readings))
        columns = {one.column.count: one.column for one in group.readings}
        self._counts = list(columns)
        self._kinds = [
            (self._counts.index(count), *_partial(function, columns[count]), _finish(function, columns[count], dtype))
            for function, count, dtype in kinds
        ]
        self._readings = [
            (kinds.index((one.function, one.column.count, one.dtype)), one.window) for one in group.readings
        ]

    def read(self, records: Sequence[Bytes], sizes: Sequence[int], at: int) -> list[Any] | None:
        """As `AnyGroup.read`."""
        joined = b"".join((*self._records(records), self._nothing))
        whole = np.frombuffer(joined, _WORD).reshape(-1, self._words)
        if np.count_nonzero(whole[:, SINCE]):
            return None
        slots = self._slots(memoryview(joined).cast("q")[:: self._words], self._sizes(sizes), self._bounds(at))
        counts = [np.add.reduceat(whole[:, word], slots)[::2].tolist() for word in self._counts]
        values = []
        for place, word, combine, is_whole, finish in self._kinds:
            count = found = counts[place]
            if combine is not None:
                words = (whole if is_whole else whole.view(_REAL))[:, word]
                if is_whole and combine is np.add and not adds_up(words):
                    return None
                found = combine.reduceat(words, slots)[::2].tolist()
            values.append(finish(found, count))
        row: list[Any] = []
        for kind, window in self._readings:
            row += values[kind][window :: self._windows]
        return row

    def _bounds(self, at: int) -> list[int]:
        """The first tile that counts, of each part in each window, one after the other."""
        edges = [(at - window) // hop for window, hop in self._edges]
        known, bounds = self._oldest
        if edges != known:
            bounds = [edges[number] for number in self._numbers]
            self._oldest = (edges, bounds)  # both at once, since other threads read them
        return bounds


def _slots_of(parts: int, windows: int) -> Callable[[Sequence[int], Sequence[int], Sequence[int]], np.ndarray]:
    """A function of the tiles of all parts, their numbers of records and the first tile that counts in each window: the
    first record and the end of each part in each window; of an empty one the record that stands for nothing, which is
    the last. Written out, like `columns_of_row`, since the loop would take longer than the search."""
    lines = [
        "def slots(tiles, sizes, bounds):",
        f"    {''.join(f's{part}, ' for part in range(parts))}*_ = sizes",
        f"    {''.join(f'b{slot}, ' for slot in range(parts * windows))}*_ = bounds",
        "    nothing = len(tiles) - 1",
        "    start = 0",
    ]
    found: list[str] = []
    for part in range(parts):
        lines.append(f"    end{part} = start + s{part}")
        for slot in range(part * windows, (part + 1) * windows):
            lines.append(f"    f{slot} = bisect_left(tiles, b{slot}, start, end{part})")
            found.append(f"nothing if f{slot} == end{part} else f{slot}, end{part}")
        lines.append(f"    start = end{part}")
    lines.append(f"    return array([{', '.join(found)}], intp)")
    names: dict[str, Any] = {"bisect_left": bisect_left, "array": np.array, "intp": np.intp}
    exec("\n".join(lines), names)  # noqa: S102 - of nothing but numbers
    return names["slots"]


def _partial(function: AggregationFunction, column: Any) -> tuple[int, np.ufunc | None, bool]:
    """The word that is reduced, how, and whether it is a whole number; the count is known anyway."""
    if function is _FUNCTION.COUNT:
        return column.count, None, True
    words = {_FUNCTION.MIN: column.lowest, _FUNCTION.MAX: column.highest}
    return words.get(function, column.total), _COMBINES.get(function, np.add), column.needs.whole


def _finish(function: AggregationFunction, column: Any, dtype: ValueType) -> Finish:
    """As `definitions.partials.finish` and `declared` do it, a value at a time."""
    as_real = dtype is ValueType.DOUBLE
    if function is _FUNCTION.COUNT:
        return _reals if as_real else _as_found
    if function is _FUNCTION.MEAN:
        return _means
    return _some_reals if as_real and column.needs.whole else _some


def _as_found(found: list[Any], count: list[int]) -> list[Any]:
    del count
    return found


def _reals(found: list[Any], count: list[int]) -> list[Any]:
    del count
    return [*map(float, found)]


def _means(found: list[Any], count: list[int]) -> list[Any]:
    return [float(total) / size if size else None for total, size in zip(found, count, strict=True)]


def _some(found: list[Any], count: list[int]) -> list[Any]:
    return [value if size else None for value, size in zip(found, count, strict=True)]


def _some_reals(found: list[Any], count: list[int]) -> list[Any]:
    return [float(value) if size else None for value, size in zip(found, count, strict=True)]
