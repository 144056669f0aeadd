"""Calling an extraction for one interval, and holding its frame against what was promised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.errors import SourceError, TidemillError
from tidemill.extract.readers import reading_below
from tidemill.extract.validation import REASON, Checked, check, check_volume, conform

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Source
    from tidemill.extract.declare import Extraction
    from tidemill.extract.intervals import Interval


def call(extraction: Extraction, source: Source, interval: Interval, *, root: Path) -> Checked:
    """The rows of an interval, good and bad. Paths that the extraction's readers are given are relative to `root`.

    Raises SourceError where the extraction fails, breaks its contract as a whole or gives rows of another interval.
    """
    frame = _frame(extraction, interval, root)
    known = source.known_field or source.timestamp_field
    if extraction.contract is not None:
        frame = conform(frame, extraction.contract, source.name)
    for column in (source.timestamp_field, known):
        _check_instants(frame, column, source.name)
    if not extraction.once:
        _check_inside(frame, known, interval, source.name)
    return _checked(frame, extraction, interval, (source.timestamp_field, known))


def _frame(extraction: Extraction, interval: Interval, root: Path) -> pl.DataFrame:
    with reading_below(root):
        try:
            return _as_polars(extraction.function(interval.start, interval.end), extraction.source)
        except TidemillError:
            raise
        except Exception as error:
            raise SourceError(
                f"The extraction of {extraction.source!r} failed for {interval.start} to {interval.end}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _checked(frame: pl.DataFrame, extraction: Extraction, interval: Interval, times: tuple[str, str]) -> Checked:
    if extraction.contract is None:
        for column in times:
            _check_complete(frame, column, extraction.source)
        return Checked(good=frame, bad=frame.clear().with_columns(pl.lit("").alias(REASON)))
    length = None if extraction.once else interval.end - interval.start
    check_volume(frame.height, length, extraction.contract, extraction.source)
    return check(frame, extraction.contract, required=times)


def _as_polars(frame: Any, name: str) -> pl.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    found = frame if isinstance(frame, pl.DataFrame) else pl.DataFrame(frame)
    if not found.width:
        raise SourceError(f"The extraction of {name!r} returned a frame without columns.")
    return found


def _check_instants(frame: pl.DataFrame, column: str, name: str) -> None:
    dtype = frame.schema.get(column)
    if not isinstance(dtype, pl.Datetime):
        found = f"is {dtype}" if dtype is not None else f"is missing; there are {', '.join(frame.columns)}"
        raise SourceError(f"The column {column!r} extracted for {name!r} {found}; expected instants in UTC.")


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
