"""Where bad rows wait for somebody to look: `<state>/quarantine/<source>/<interval>.parquet`, with their reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from tidemill.errors import SourceError
from tidemill.extract.intervals import Interval, interval_of, missing
from tidemill.extract.landing import write_atomically
from tidemill.extract.validation import REASON, count_reasons

_UNFIT = re.compile(r"[/\\%\0]|^\.")


def folder_name(source: str) -> str:
    """A source's name as that of a folder. One that is called as its path would else lie elsewhere, or in its data."""
    return _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", source)


@dataclass(frozen=True, kw_only=True, order=True)
class Quarantined:
    """The bad rows of one interval of one source: a file. `interval` is None for a source that lands once."""

    source: str
    file: Path

    @property
    def interval(self) -> Interval | None:
        return interval_of(self.file.name)

    @property
    def since(self) -> datetime:
        """When they were put there, UTC."""
        return datetime.fromtimestamp(self.file.stat().st_mtime, UTC)

    @property
    def ends(self) -> datetime:
        """The end of their interval; for a source that lands once, when they were put there."""
        return self.interval.end if self.interval else self.since

    def rows(self) -> pl.DataFrame:
        """The rows, with `__reason`. Raises SourceError where the file cannot be read."""
        return _read(self.file)

    def reasons(self) -> list[tuple[str, int]]:
        """What was wrong with them, with how many rows, the most frequent first."""
        return count_reasons(_read(self.file, [REASON]))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with rows of a source: how many rows, in how many intervals, from when to when."""

    source: str
    reason: str
    rows: int
    intervals: int
    first: datetime | None
    last: datetime | None


class Quarantine:
    """The bad rows of a project, one file for each interval of each source that had any."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "quarantine"

    def file(self, source: str, name: str) -> Path:
        return self._folder / folder_name(source) / name

    def keep(self, source: str, name: str, bad: pl.DataFrame) -> Path | None:
        """Put an interval's bad rows in its file, all or nothing; where there are none any more, the file goes."""
        file = self.file(source, name)
        if not bad.is_empty():
            write_atomically(bad, file)
            return file
        if file.exists():
            file.unlink(missing_ok=True)
        return None

    def sources(self) -> list[str]:
        """The sources that have rows here, by name."""
        return sorted({entry.source for entry in self.entries()})

    def entries(self, source: str | None = None) -> list[Quarantined]:
        """What is here, of one source where asked, ordered by source and interval."""
        folders = self._folder.glob("*") if source is None else [self._folder / folder_name(source)]
        files = (file for folder in folders for file in folder.glob("[!.]*.parquet"))
        return sorted(Quarantined(source=unquote(file.parent.name), file=file) for file in files)

    def files(self, source: str | None = None) -> list[Path]:
        """The files there are, of one source where asked, ordered by source and interval."""
        return [entry.file for entry in self.entries(source)]

    def read(self, source: str) -> pl.DataFrame:
        """All quarantined rows of a source; `__reason` says what was wrong. Without any, a frame without columns.

        A column that had other types before, as when its contract was changed, comes back as text.
        """
        frames = [entry.rows() for entry in self.entries(source)]
        try:
            return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
        except pl.exceptions.PolarsError:
            return pl.concat(_changing_as_text(frames), how="diagonal_relaxed")

    def reasons(self, source: str) -> list[tuple[str, int]]:
        """What was wrong with the rows of a source, with how many rows, the most frequent first."""
        counted: Counter[str] = Counter()
        for entry in self.entries(source):
            counted.update(dict(entry.reasons()))
        return sorted(counted.items(), key=lambda item: (-item[1], item[0]))

    def faults(self, source: str | None = None) -> list[Fault]:
        """What is wrong with the rows here: each source's faults, the most frequent first."""
        found: dict[tuple[str, str], list[tuple[int, Interval | None]]] = {}
        for entry in self.entries(source):
            for reason, rows in entry.reasons():
                found.setdefault((entry.source, reason), []).append((rows, entry.interval))
        faults = [_fault(*name, where) for name, where in found.items()]
        return sorted(faults, key=lambda fault: (fault.source, -fault.rows, fault.reason))

    def clear(self, sources: Sequence[str] | None = None, *, before: datetime | None = None) -> list[Quarantined]:
        """Delete what is here, of some sources and of intervals that end by `before` where asked; returns what went.

        What landed stays as it is, and no interval is extracted again for it.
        """
        chosen = [entry for entry in self.entries() if sources is None or entry.source in sources]
        return _deleted(entry for entry in chosen if before is None or entry.ends <= before)

    def expire(self, source: str, *, before: datetime) -> list[Quarantined]:
        """Delete what was put here before an instant."""
        return _deleted(entry for entry in self.entries(source) if entry.since < before)

    def drop_superseded(self, source: str, landed: Sequence[Interval]) -> list[Quarantined]:
        """Delete what a run left that stopped, once other runs have landed its interval in other pieces: those have
        judged its rows anew. `landed` is ascending."""
        intervals = set(landed)
        return _deleted(
            entry
            for entry in self.entries(source)
            if (interval := entry.interval) and interval not in intervals and not list(missing(interval, landed))
        )


def _fault(source: str, reason: str, where: list[tuple[int, Interval | None]]) -> Fault:
    intervals = [interval for _, interval in where if interval is not None]
    return Fault(
        source=source,
        reason=reason,
        rows=sum(rows for rows, _ in where),
        intervals=len(where),
        first=min((interval.start for interval in intervals), default=None),
        last=max((interval.end for interval in intervals), default=None),
    )


def _deleted(entries: Iterator[Quarantined]) -> list[Quarantined]:
    gone = list(entries)
    for entry in gone:
        entry.file.unlink(missing_ok=True)
    return gone


def _read(file: Path, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(file, columns=columns)
    except FileNotFoundError:
        return pl.DataFrame()  # cleared a moment ago
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"{file} in quarantine cannot be read: {str(error).splitlines()[0]}.", hint="Move it away, or delete it."
        ) from error


def _changing_as_text(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    types: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            types.setdefault(name, set()).add(dtype)
    changing = [name for name, found in types.items() if len(found) > 1]
    return [frame.with_columns(_as_text(frame[name]) for name in changing if name in frame.columns) for frame in frames]


def _as_text(values: pl.Series) -> pl.Series:
    texts = [None if value is None else str(value) for value in values.to_list()]
    return pl.Series(values.name, texts, dtype=pl.String)
