"""Where bad rows wait for somebody to look: `<state>/quarantine/<source>/<interval>.parquet`, with their reasons."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tidemill.extract.landing import write_atomically
from tidemill.extract.validation import count_reasons


class Quarantine:
    """The bad rows of a project, one file for each interval of each source that had any."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "quarantine"

    def file(self, source: str, name: str) -> Path:
        return self._folder / source / name

    def keep(self, source: str, name: str, bad: pl.DataFrame) -> Path | None:
        """Put an interval's bad rows in its file, all or nothing; where there are none any more, the file goes."""
        file = self.file(source, name)
        if bad.is_empty():
            file.unlink(missing_ok=True)
            return None
        write_atomically(bad, file)
        return file

    def files(self, source: str | None = None) -> list[Path]:
        """The files there are, of one source where asked, ordered by source and interval."""
        return sorted(self._folder.glob(f"{source or '*'}/[!.]*.parquet"))

    def read(self, source: str) -> pl.DataFrame:
        """All quarantined rows of a source; `__reason` says what was wrong. Without any, a frame without columns."""
        frames = [pl.read_parquet(file) for file in self.files(source)]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    def reasons(self, source: str) -> list[tuple[str, int]]:
        """What was wrong with the rows of a source, with how many rows, the most frequent first."""
        return count_reasons(self.read(source))
