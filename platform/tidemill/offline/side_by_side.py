"""Independent pieces of array work on two cores: NumPy lets other threads run while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_THREADS = 2
_MANY = 50_000
"""Below this many values the threads would cost more than they save."""
_FEW = 15_000
"""Values of which a dozen arrays fit into a core's cache together, each small enough to need no fresh memory."""


def side_by_side(work: Sequence[Callable[[], T]], *, size: int) -> list[T]:
    """The results of some pieces of work over about `size` values each, in order."""
    if size < _MANY or len(work) < 2:
        return [piece() for piece in work]
    with ThreadPoolExecutor(_THREADS) as workers:
        return list(workers.map(lambda piece: piece(), work))


def shares_of(size: int) -> list[slice]:
    """`size` values in as many shares as are worked on side by side; one share of few values."""
    number = _THREADS if size >= _MANY else 1
    return [slice(size * share // number, size * (share + 1) // number) for share in range(number)]


def few_at_a_time(end: int, *, start: int = 0) -> Iterator[slice]:
    """The values up to `end` in pieces, for each of which what is computed on the way stays in the cache."""
    return (slice(first, min(first + _FEW, end)) for first in range(start, end, _FEW))
