"""Running extractions: each interval of each source is checked and lands once, as one file, all or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from tidemill.clock import as_utc
from tidemill.definitions.duration import parse_duration
from tidemill.errors import InputError, NotDefinedError
from tidemill.extract.calling import call
from tidemill.extract.declare import Extraction, extractions_of
from tidemill.extract.intervals import Interval, landed, missing, split
from tidemill.extract.landing import alone, check_shape, known_types, shape_of, sweep, write_atomically
from tidemill.extract.quarantine import Quarantine, folder_name
from tidemill.extract.validation import check_share

if TYPE_CHECKING:
    import polars as pl

    from tidemill.definitions.catalog import Source
    from tidemill.project import Project

ONCE = "once.parquet"


@dataclass(frozen=True, kw_only=True)
class ExtractReport:
    """What was done for one source: `intervals` asked for, of which `skipped` had landed before; `rows` landed now.

    `quarantined` counts the rows that broke the source's contract and wait in `quarantine` (a file for each interval);
    `reasons` says why, the most frequent first. `first_known` is when the first of the rows that landed became known.
    """

    source: str
    start: datetime
    end: datetime
    intervals: int
    skipped: int
    rows: int
    seconds: float
    quarantined: int = 0
    quarantine: tuple[str, ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()
    first_known: datetime | None = None


def extract(
    project: Project,
    *,
    start: datetime,
    end: datetime,
    sources: Sequence[str] | None = None,
    every: str | timedelta = "1d",
    progress: Callable[[float], None] | None = None,
    at: datetime | None = None,
) -> list[ExtractReport]:
    """Land what became known in `[start, end)`, one file for each interval of length `every` and each source.

    An interval, or a part of one, that has landed before is left as it is: any mixture of days and hours, run any
    number of times, gives the same rows. `progress` is told the share of the work done since it was last told.

    Rows that break the source's contract go to quarantine; a contract broken as a whole stops the run at that
    interval: what landed before stays, and the next run goes on from there. What has been in the sources' quarantine
    longer than the project's `quarantine_keep`, seen from `at` (now), is deleted.

    Raises NotDefinedError for a source that nothing extracts, SourceError for a broken contract, a frame of another
    shape than the source's or an extraction that failed, InputError for an interval that ends before it starts,
    ConflictError where another process is extracting the same source.
    """
    start, end = as_utc(start), as_utc(end)
    intervals = list(split(start, end, parse_duration(every)))
    chosen = _chosen(project, sources)
    share = 1 / (len(chosen) * len(intervals)) if chosen else 0.0

    def advance() -> None:
        if progress is not None:
            progress(share)

    keep, now = project.settings.quarantine_keep, at or project.clock.now()
    expired = None if keep is None else now - parse_duration(keep)
    return [_extract_source(project, extraction, intervals, advance, expired) for extraction in chosen]


def fetch(project: Project, source: str, *, start: datetime, end: datetime) -> pl.DataFrame:
    """The good rows of one source that became known in `[start, end)`, from its extraction; nothing lands.

    Raises as `extract` does.
    """
    (extraction,) = _chosen(project, [source])
    interval = Interval(as_utc(start), as_utc(end))
    return call(extraction, project.catalog.source(source), interval, root=project.root).good


def _chosen(project: Project, sources: Sequence[str] | None) -> list[Extraction]:
    declared = extractions_of(project.root)
    for name in declared:
        project.catalog.source(name)
    for name in sources or ():
        if name not in declared:
            raise NotDefinedError("extraction", name, declared)
    return [extraction for name, extraction in declared.items() if sources is None or name in sources]


def _extract_source(
    project: Project,
    extraction: Extraction,
    intervals: list[Interval],
    advance: Callable[[], None],
    expired: datetime | None,
) -> ExtractReport:
    began, source = perf_counter(), project.catalog.source(extraction.source)
    with alone(project.state / "locks" / f"extract-{folder_name(source.name)}.lock", f"extracting {source.name!r}"):
        done = _Landing(project, extraction, source)
        for interval in intervals:
            done.take(interval)
            advance()
        done.tidy(expired)
    return ExtractReport(
        source=source.name,
        start=intervals[0].start,
        end=intervals[-1].end,
        intervals=len(intervals),
        skipped=done.skipped,
        rows=done.rows,
        seconds=perf_counter() - began,
        quarantined=done.quarantined,
        quarantine=tuple(map(str, done.files)),
        reasons=tuple(done.reasons.most_common()),
        first_known=done.first_known,
    )


class _Landing:
    """One source's way into its folder, interval by interval."""

    def __init__(self, project: Project, extraction: Extraction, source: Source) -> None:
        self._extraction, self._source, self._root = extraction, source, project.root
        self._folder = _folder(project.root, source)
        self._quarantine = Quarantine(project.state)
        sweep(self._folder)
        self._there = landed(self._folder)
        self._shape = shape_of(self._folder)
        self.rows = self.skipped = self.quarantined = 0
        self.files: list[Path] = []
        self.reasons: Counter[str] = Counter()
        self.first_known: datetime | None = None

    def take(self, interval: Interval) -> None:
        gaps = self._gaps(interval)
        self.skipped += not gaps
        for gap, name in gaps:
            self._land(gap, name)

    def tidy(self, expired: datetime | None) -> None:
        """Delete from quarantine what has been judged anew since, and what has been there since before `expired`."""
        self._quarantine.drop_superseded(self._source.name, landed(self._folder))
        if expired is not None:
            self._quarantine.expire(self._source.name, before=expired)

    def _land(self, gap: Interval, name: str) -> None:
        """Bad rows first, good rows last: the landed file is what says that the interval is done."""
        found = call(self._extraction, self._source, gap, root=self._root, shape=self._shape)
        if file := self._quarantine.keep(self._source.name, name, found.bad):
            self.files.append(file)
        if self._extraction.contract is not None:
            check_share(found, self._extraction.contract, self._source.name, kept=file)
        check_shape(found.good, self._shape, self._source.name)
        write_atomically(_in_order(found.good, self._source.timestamp_field), self._folder / name)
        self._shape = known_types(dict(found.good.schema), self._shape)
        self.rows += found.good.height
        self.quarantined += found.bad.height
        self.reasons.update(dict(found.reasons()))
        self.first_known = _earlier(self.first_known, _first(found.good, self._source))

    def _gaps(self, interval: Interval) -> list[tuple[Interval, str]]:
        if self._extraction.once:
            return [] if (self._folder / ONCE).exists() else [(interval, ONCE)]
        return [(gap, gap.file_name) for gap in missing(interval, self._there)]


def _first(frame: pl.DataFrame, source: Source) -> datetime | None:
    """When the first row became known."""
    first = frame.get_column(source.known_field or source.timestamp_field).min()
    return as_utc(first) if isinstance(first, datetime) else None


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


def _in_order(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """By event time: a file that is in order already needs no sorting when features are looked up in it."""
    return frame if frame.get_column(column).is_sorted() else frame.sort(column, maintain_order=True)


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
