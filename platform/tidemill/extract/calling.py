"""Calling an extraction for one interval, and holding its frame against what was promised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from tidemill.errors import SourceError, TidemillError
from tidemill.extract.frames import Shape, gathered
from tidemill.extract.locations import reading_below, without_secrets
from tidemill.extract.validation import REASON, Checked, check, check_volume

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Source
    from tidemill.extract.declare import Extraction
    from tidemill.extract.intervals import Interval


_ENDS = (Exception, SystemExit, pl.exceptions.PanicException)
"""What a function of the user's may end with: neither `sys.exit()` nor a panic in Polars is the end of a worker."""


def call(
    extraction: Extraction, source: Source, interval: Interval, *, root: Path, shape: Shape | None = None
) -> Checked:
    """The rows of an interval, good and bad. Paths that the extraction's readers are given are relative to `root`.

    `shape` is what landed before: it gives columns without a value their types. Raises SourceError where the extraction
    fails, breaks its contract as a whole or gives rows of another interval.
    """
    frame = _frame(extraction, interval, root, shape)
    known = source.known_field or source.timestamp_field
    for column in (source.timestamp_field, known):
        _check_instants(frame, column, source.name)
    if not extraction.once:
        _check_inside(frame, known, interval, source.name)
    return _checked(frame, extraction, interval, (source.timestamp_field, known))


def _frame(extraction: Extraction, interval: Interval, root: Path, shape: Shape | None) -> pl.DataFrame:
    with reading_below(root):
        try:
            found = extraction.function(interval.start, interval.end)
            return gathered(found, extraction.contract, extraction.source, shape=shape)
        except TidemillError:
            raise
        except _ENDS as error:
            told = without_secrets(str(error))
            raise SourceError(
                f"The extraction of {extraction.source!r} failed for {interval.start} to {interval.end}: "
                f"{type(error).__name__}: {told}"
            ) from (error if told == str(error) else None)


def _checked(frame: pl.DataFrame, extraction: Extraction, interval: Interval, times: tuple[str, str]) -> Checked:
    if extraction.contract is None:
        for column in times:
            _check_complete(frame, column, extraction.source)
        return Checked(good=frame, bad=frame.clear().with_columns(pl.lit("").alias(REASON)))
    length = None if extraction.once else interval.end - interval.start
    check_volume(frame.height, length, extraction.contract, extraction.source)
    return check(frame, extraction.contract, required=times)


def _check_instants(frame: pl.DataFrame, column: str, name: str) -> None:
    dtype = frame.schema.get(column)
    if not isinstance(dtype, pl.Datetime):
        found = f"is {dtype}" if dtype is not None else f"is missing; there are {', '.join(frame.columns)}"
        unknown = dtype is not None and dtype == pl.Null
        raise SourceError(
            f"The column {column!r} extracted for {name!r} {found}; expected instants in UTC.",
            hint="It has no value to tell its type by: name it in a contract." if unknown else None,
        )


def _check_complete(frame: pl.DataFrame, column: str, name: str) -> None:
    if frame.get_column(column).null_count():
        raise SourceError(f"The column {column!r} extracted for {name!r} has nulls; every row needs its times.")


def _check_inside(frame: pl.DataFrame, known: str, interval: Interval, name: str) -> None:
    moments = frame.get_column(known)
    if moments.dtype.time_zone is None:  # pyright: ignore[reportAttributeAccessIssue] - checked to be a Datetime
        moments = moments.dt.replace_time_zone("UTC")
    first, last = moments.min(), moments.max()
    if first is None or (first >= interval.start and last < interval.end):  # pyright: ignore[reportOperatorIssue]
        return
    outside = (
        len(moments) - moments.null_count() - moments.is_between(interval.start, interval.end, closed="left").sum()
    )
    raise SourceError(
        f"{outside} rows extracted for {name!r} became known outside of {interval.start} to {interval.end}.",
        hint=f"Return the rows whose {known!r} lies in [start, end), or none would land exactly once.",
    )
