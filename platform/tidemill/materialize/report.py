"""What became of a run, as it is told to whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.offline.latest import Latest
    from tidemill.online.writer import WriteResult

SUCCEEDED, FAILED, CURRENT, HELD, DRY_RUN = "succeeded", "failed", "current", "held", "dry-run"


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What became of one view's run.

    `state` is `succeeded`, `failed` (see `error`; the ledger keeps it too), `current` (nothing to do), `held` (another
    worker does it) or `dry-run` (the numbers are then those of the run that would be made). `rows_skipped` are rows
    older than what was stored and rows with a null key; `rows_unchanged` were stored already. A run that `went_on_from`
    where an earlier try had come counts the rows of both.
    """

    view: str
    start: datetime | None
    end: datetime
    state: str
    cutoff: datetime | None = None
    rows_read: int = 0
    rows_written: int = 0
    rows_unchanged: int = 0
    rows_skipped: int = 0
    seconds: float = 0.0
    error: str | None = None
    went_on_from: datetime | None = None

    def with_part(self, found: Latest, result: WriteResult) -> RunReport:
        """The same with the rows of one more part, as they were found and as they were written."""
        return replace(
            self,
            rows_read=self.rows_read + found.rows_read,
            rows_written=self.rows_written + result.written,
            rows_unchanged=self.rows_unchanged + result.unchanged,
            rows_skipped=self.rows_skipped + result.skipped_older + result.null_keys + found.null_keys,
        )
