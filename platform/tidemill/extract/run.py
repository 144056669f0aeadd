"""Running a project's extractions: each interval of each source lands once, as one Parquet file, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.clock import as_utc
from tidemill.definitions.duration import parse_duration
from tidemill.errors import InputError, NotDefinedError, SourceError
from tidemill.extract.declare import Extraction, extractions_of
from tidemill.extract.intervals import Interval, landed, missing, split
from tidemill.extract.landing import land

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Source
    from tidemill.project import Project

ONCE = "once.parquet"


@dataclass(frozen=True, kw_only=True)
class ExtractReport:
    """What was done for one source: `intervals` asked for, of which `skipped` had landed before; `rows` landed now."""

    source: str
    start: datetime
    end: datetime
    intervals: int
    skipped: int
    rows: int
    seconds: float


def extract(
    project: Project,
    *,
    start: datetime,
    end: datetime,
    sources: Sequence[str] | None = None,
    every: str | timedelta = "1d",
    progress: Callable[[float], None] | None = None,
) -> list[ExtractReport]:
    """Land what became known in `[start, end)`, one file for each interval of length `every` and each source.

    An interval, or a part of one, that has landed before is left as it is: any mixture of days and hours, run any
    number of times, gives the same rows. `progress` is told the share of the work done since it was last told.

    Raises NotDefinedError for a source that nothing extracts, SourceError for a frame of another shape than the
    source's, InputError for an interval that ends before it starts.
    """
    start, end = as_utc(start), as_utc(end)
    intervals = list(split(start, end, parse_duration(every)))
    chosen = _chosen(project, sources)
    share = 1 / (len(chosen) * len(intervals)) if chosen else 0.0

    def advance() -> None:
        if progress is not None:
            progress(share)

    return [_extract_source(project, extraction, intervals, advance) for extraction in chosen]


def fetch(project: Project, source: str, *, start: datetime, end: datetime) -> pl.DataFrame:
    """The rows of one source that became known in `[start, end)`, straight from its extraction; nothing lands."""
    (extraction,) = _chosen(project, [source])
    return _call(extraction, project.catalog.source(source), Interval(as_utc(start), as_utc(end)))


def _chosen(project: Project, sources: Sequence[str] | None) -> list[Extraction]:
    declared = extractions_of(project.root)
    for name in declared:
        project.catalog.source(name)
    for name in sources or ():
        if name not in declared:
            raise NotDefinedError("extraction", name, declared)
    return [extraction for name, extraction in declared.items() if sources is None or name in sources]


def _extract_source(
    project: Project, extraction: Extraction, intervals: list[Interval], advance: Callable[[], None]
) -> ExtractReport:
    began, rows, skipped = perf_counter(), 0, 0
    source = project.catalog.source(extraction.source)
    folder = _folder(project.root, source)
    there = landed(folder)
    for interval in intervals:
        gaps = _gaps(extraction, folder, interval, there)
        skipped += not gaps
        for gap, name in gaps:
            frame = _call(extraction, source, gap)
            land(frame.sort(source.timestamp_field, maintain_order=True), folder / name)
            rows += frame.height
        advance()
    return ExtractReport(
        source=source.name,
        start=intervals[0].start,
        end=intervals[-1].end,
        intervals=len(intervals),
        skipped=skipped,
        rows=rows,
        seconds=perf_counter() - began,
    )


def _gaps(
    extraction: Extraction, folder: Path, interval: Interval, there: list[Interval]
) -> list[tuple[Interval, str]]:
    if extraction.once:
        return [] if (folder / ONCE).exists() else [(interval, ONCE)]
    return [(gap, gap.file_name) for gap in missing(interval, there)]


def _folder(root: Path, source: Source) -> Path:
    if "://" in source.path:
        raise InputError(f"{source.name!r} lies at {source.path}; extraction writes to folders of this machine.")
    folder = root / source.path
    if folder.suffix == ".parquet" or folder.is_file():
        raise InputError(
            f"{source.name!r} is the single file {source.path}; extraction lands one file for each interval.",
            hint="Give the source a folder as its path.",
        )
    return folder


def _call(extraction: Extraction, source: Source, interval: Interval) -> pl.DataFrame:
    frame = _as_polars(extraction.function(interval.start, interval.end), source.name)
    known = source.known_field or source.timestamp_field
    for column in (source.timestamp_field, known):
        _check_instants(frame, column, source.name)
    if not extraction.once:
        _check_inside(frame, known, interval, source.name)
    return frame


def _as_polars(frame: Any, name: str) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    found = pl.DataFrame(frame)
    if not found.width:
        raise SourceError(f"The extraction of {name!r} returned a frame without columns.")
    return found


def _check_instants(frame: pl.DataFrame, column: str, name: str) -> None:
    dtype = frame.schema.get(column)
    if not isinstance(dtype, pl.Datetime):
        found = f"is {dtype}" if dtype is not None else f"is missing; there are {', '.join(frame.columns)}"
        raise SourceError(f"The column {column!r} extracted for {name!r} {found}; expected instants in UTC.")
    if frame.get_column(column).null_count():
        raise SourceError(f"The column {column!r} extracted for {name!r} has nulls; every row needs its times.")


def _check_inside(frame: pl.DataFrame, known: str, interval: Interval, name: str) -> None:
    moments = frame.get_column(known)
    if moments.dtype.time_zone is None:  # pyright: ignore[reportAttributeAccessIssue] - checked to be a Datetime
        moments = moments.dt.replace_time_zone("UTC")
    outside = frame.height - moments.is_between(interval.start, interval.end, closed="left").sum()
    if outside:
        raise SourceError(
            f"{outside} rows extracted for {name!r} became known outside of {interval.start} to {interval.end}.",
            hint=f"Return the rows whose {known!r} lies in [start, end), or none would land exactly once.",
        )
