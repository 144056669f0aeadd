"""Writing a training set piece by piece, so that it may be larger than memory.

Pieces are runs of spine rows in the spine's order. What a piece needs is known beforehand (its rows times the width of
keys, times and features), so the memory limit decides how many rows a piece has. The folder appears at once, complete
or not at all: everything is written beside it under a hidden name first.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil

from tidemill.errors import ConfigurationError, ConflictError, UnavailableError
from tidemill.offline.content import SEGMENT_ROWS, ContentDigest
from tidemill.offline.history import THREADS
from tidemill.offline.spine import Spine

Progress = Callable[[int, int], None]
"""Called with the rows written so far and the rows in all."""

DEFAULT_ROWS = 64 * SEGMENT_ROWS
_LOOKUP_BYTES = 160
"""What a label costs while it is looked up: codes, cut-offs, winners and their orders."""
_VALUE_BYTES = 40
"""What a value costs while it is gathered and written: as gathered, in order, and in the writer."""
_CHUNK_BYTES = (THREADS + 2) * 80 * 2**20
"""What the pieces of the source cost that are in memory at one time."""


@dataclass(frozen=True, kw_only=True)
class Sunk:
    """What was written: the folder, its rows, and the digest of their content."""

    folder: Path
    rows: int
    digest: str


def sink(
    spine: Spine,
    compute: Callable[[Spine, int | None], pl.DataFrame],
    folder: Path,
    *,
    values: int,
    windows: bool = False,
    memory_limit: int | None = None,
    progress: Progress | None = None,
    finish: Callable[[Path, Sunk], None] | None = None,
) -> Sunk:
    """Compute a spine's rows piece by piece into `folder`, as `part-00000.parquet` and so on.

    Args:
        spine: all rows.
        compute: the whole output of some of the spine's rows; told how many bytes events of windows may take.
        folder: made new.
        values: how many features a row has, for the estimate of memory.
        windows: whether events are held in memory, of which those of some keys at a time then.
        memory_limit: bytes this process may hold in all; without it pieces are large.
        progress: told after each piece.
        finish: adds further files before the folder appears.

    Raises ConflictError where the folder exists already, ConfigurationError where the limit is too low to begin,
    UnavailableError where the disk fills; nothing is left behind then.
    """
    if folder.exists():
        raise ConflictError(f"{folder} exists already.", hint="Name a new folder, or take this one away first.")
    rows, room = shares_of(values, memory_limit, held=psutil.Process().memory_info().rss, windows=windows)
    _check_space(folder, len(spine) * max(values, 1))
    with _appearing(folder) as partial:
        digest: ContentDigest | None = None
        for number, piece in enumerate(_pieces(spine, rows)):
            found = compute(piece, room)
            digest = digest or ContentDigest(found.schema)
            digest.update(found)
            found.write_parquet(partial / f"part-{number:05d}.parquet", compression="zstd", compression_level=1)
            if progress is not None:
                progress(min((number + 1) * rows, len(spine)), len(spine))
        assert digest is not None  # noqa: S101 - there is always a piece, if only an empty one
        sunk = Sunk(folder=folder, rows=len(spine), digest=digest.hexdigest())
        if finish is not None:
            finish(partial, sunk)
    return sunk


def shares_of(values: int, memory_limit: int | None, *, held: int, windows: bool = False) -> tuple[int, int | None]:
    """How many rows a piece may have, a multiple of SEGMENT_ROWS, and how many bytes what is read may take meanwhile.

    `held` is what the process takes already, in bytes. The second number is None without a limit. Events of windows
    get half of what is left, pieces of sources what they need.
    """
    if memory_limit is None:
        return DEFAULT_ROWS, None
    left = memory_limit - held
    reading = max(_CHUNK_BYTES, left // 2) if windows else _CHUNK_BYTES
    segments = int((left - reading) // ((_LOOKUP_BYTES + _VALUE_BYTES * values) * SEGMENT_ROWS))
    if segments < 1:
        raise ConfigurationError(
            f"A memory limit of {memory_limit / 2**20:,.0f} MB is too low: this process already holds "
            f"{held / 2**20:,.0f} MB, and reading the sources takes another {reading / 2**20:,.0f} MB.",
            hint="Raise memory_limit, or give the spine as a smaller frame.",
        )
    return min(segments * SEGMENT_ROWS, DEFAULT_ROWS), reading


def _pieces(spine: Spine, rows: int) -> Iterator[Spine]:
    for start in range(0, max(len(spine), 1), rows):
        yield spine.slice(start, rows)


def _check_space(folder: Path, values: int) -> None:
    """Refuse before the work what cannot fit: less than a byte for each value."""
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < values:
        raise UnavailableError(
            f"{values:,} values do not fit into the {free / 2**20:,.0f} MB that are free at {parent}.",
            hint="Make room, or name a folder on another disk.",
        )


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A hidden folder that takes its name once everything in it is written, and vanishes if anything fails."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    except (OSError, pl.exceptions.ComputeError) as error:
        raise UnavailableError(
            f"{folder} could not be written: {str(error).splitlines()[0]}.",
            hint="Nothing was left behind. Check the free space and the permissions there.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
