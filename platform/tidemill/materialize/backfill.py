"""Backfill: an interval of history into the online store, piece by piece.

Never overwrites a newer value, since the newest fact wins whoever writes it; so pieces may be loaded in any order and
several at a time. It is one row of the ledger, which remembers the pieces that are done: stopped, paused or killed, it
goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from tidemill.clock import as_utc
from tidemill.definitions.catalog import View
from tidemill.errors import InputError
from tidemill.materialize.chunks import Chunk, chunks_of_each
from tidemill.materialize.lease import kept
from tidemill.materialize.ledger import BACKFILL
from tidemill.materialize.reach import seen_until
from tidemill.materialize.records import Claim
from tidemill.materialize.report import HELD, SUCCEEDED, RunReport
from tidemill.materialize.run import Materializer
from tidemill.schedule.switches import EVERYTHING, Switches

if TYPE_CHECKING:
    from tidemill.project import Project

PAUSED = "paused"
_PIECES = 48  # unless asked otherwise: enough to show progress and to lose little, few enough to cost little


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How far a backfill is. `seconds_left` is None until the first piece is done."""

    done: int
    total: int
    rows_written: int
    seconds_left: float | None


def backfill(
    project: Project,
    view: str,
    *,
    start: datetime,
    end: datetime,
    parallel: int = 1,
    piece: timedelta | None = None,
    at: datetime | None = None,
    progress: Callable[[int], object] | None = None,
    estimate: Callable[[Estimate], object] | None = None,
) -> list[RunReport]:
    """Load the facts of `(start, end]` that are known by `end`.

    Args:
        parallel: pieces loaded at the same time.
        piece: the length of a piece; default a 48th of the interval. A resumed backfill keeps the one it began with.
        at: now; default the project's clock.
        progress: called with 1 for every piece that is done; `estimate` with how far it is.

    Paused by `Switches.pause("backfill:{view}")`, it ends with state `paused` after the pieces at work, and goes on
    when it is called again. Raises NotDefinedError, and InputError for an interval that is empty or in the future or
    for a view whose values are made of events.
    """
    now = at or project.clock.now()
    start, end = as_utc(start), as_utc(end)
    found = _checked(project, view, start, end, now)
    length = piece or max((end - start) / _PIECES, timedelta(seconds=1))
    claim = project.ledger.claim(
        view, start=start, end=end, at=now, kind=BACKFILL, catalog_digest=project.catalog.digest, again=True
    )
    if claim is None:
        return [RunReport(view=view, start=start, end=end, state=HELD)]
    work = _Work(project, found, claim, now, length=length, progress=progress, estimate=estimate)
    return [work.run(parallel)]


def unfinished_end(project: Project, view: str, *, start: datetime) -> datetime | None:
    """Where the last backfill that began at `start` is to end, if it is at work, was stopped or failed; else None."""
    last = project.ledger.newest_from(view, as_utc(start), kind=BACKFILL)
    return None if last is None or last.state == SUCCEEDED else last.end


def switch_name(view: str) -> str:
    """What a backfill is called where tasks are paused."""
    return f"backfill:{view}"


def _checked(project: Project, name: str, start: datetime, end: datetime, at: datetime) -> View:
    view = project.catalog.view(name)
    if start >= at:
        raise InputError(f"The interval begins in the future: {start.isoformat()}; now it is {at.isoformat()}.")
    if end <= start:
        raise InputError(
            f"The interval ends before it begins: {start.isoformat()} to {end.isoformat()}.", hint="Swap the two."
        )
    if end > at:
        raise InputError(f"The interval ends in the future: {end.isoformat()} is after {at.isoformat()}.")
    if not view.online:
        raise InputError(f"View {name!r} is not kept online.", hint="Declare it with online=True and apply.")
    if view.is_windowed:
        raise InputError(
            f"View {name!r} is made of windows, whose values at past instants nobody can read online.",
            hint="Materialize it: its windows are then built from the whole history.",
        )
    return view


class _Work:
    """One backfill at work: which pieces are done, and what came of them."""

    def __init__(
        self,
        project: Project,
        view: View,
        claim: Claim,
        at: datetime,
        *,
        length: timedelta,
        progress: Callable[[int], object] | None,
        estimate: Callable[[Estimate], object] | None,
    ) -> None:
        self._project, self._view, self._claim, self._at = project, view, claim, at
        self._progress, self._estimate = progress, estimate
        self._began = time.monotonic()
        self._report = RunReport(view=view.name, start=claim.start, end=claim.end, state=SUCCEEDED)
        self._done: set[int] = set()
        self._length = length
        if claim.progress is not None:
            self._resume(json.loads(claim.progress))
        self._done_before = len(self._done)
        self._ends = _ends(claim, self._length)

    def run(self, parallel: int) -> RunReport:
        materializer = Materializer(self._project)
        with materializer.recorded(self._claim, self._at, self._began):
            with kept(self._project.ledger, self._claim, at=self._at):
                finished = self._load_pieces(parallel)
                materializer.refuse_outdated(self._view, self._at)
            now = materializer.finished(self._at, self._began)
            if not finished:
                self._project.ledger.release(self._claim, at=self._at)
                return self._timed(state=PAUSED)
            cutoff = self._cutoff()
            self._project.ledger.succeed(
                self._claim,
                cutoff=cutoff,
                rows_read=self._report.rows_read,
                rows_written=self._report.rows_written,
                rows_skipped=self._report.rows_skipped,
                at=now,
            )
            return self._timed(state=SUCCEEDED, cutoff=cutoff)
        return materializer.failure(self._claim, self._began)

    def _load_pieces(self, parallel: int) -> bool:
        """False where it was paused before the end."""
        waiting = iter(sorted(set(range(len(self._ends))) - self._done))
        chunks = self._chunks(max(1, parallel))
        with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="tidemill-backfill") as pool:
            at_work: dict[Future[RunReport], int] = {}
            paused = False
            while True:
                while not paused and len(at_work) < max(1, parallel):
                    paused = self._paused()
                    piece = None if paused else next(waiting, None)
                    if piece is None:
                        break
                    at_work[pool.submit(self._load, piece, chunks[piece])] = piece
                if not at_work:
                    return len(self._done) == len(self._ends)
                for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                    self._note(at_work.pop(future), future.result())

    def _chunks(self, parallel: int) -> list[list[Chunk]]:
        limit, offline = self._project.settings.memory_limit, self._project.offline
        if self._claim.start is None:
            return []
        return chunks_of_each(offline, self._view, self._claim.start, self._ends, limit=limit, parallel=parallel)

    def _load(self, piece: int, chunks: Sequence[Chunk]) -> RunReport:
        start, report = self._ends[piece - 1] if piece else self._claim.start, replace(self._report, **_NOTHING)
        offline, online = self._project.offline, self._project.online
        for chunk in chunks:
            for share in range(chunk.shares):
                part = (share, chunk.shares) if chunk.shares > 1 else None
                found = offline.latest_rows(self._view.name, start=start, end=chunk.end, known_after=start, share=part)
                result = online.write(self._view.name, found.frame, learned=self._claim.end)
                report = report.with_part(found, result)
            start = chunk.end
        return report

    def _note(self, piece: int, found: RunReport) -> None:
        self._done.add(piece)
        counts = {name: getattr(self._report, name) + getattr(found, name) for name in _COUNTS}
        self._report = replace(self._report, **counts)
        saved = {"piece": self._length / timedelta(microseconds=1), "done": sorted(self._done), **counts}
        self._project.ledger.save_progress(self._claim, json.dumps(saved), at=self._at + self._elapsed())
        if self._progress is not None:
            self._progress(1)
        if self._estimate is not None:
            self._estimate(self._how_far())

    def _how_far(self) -> Estimate:
        fresh = len(self._done) - self._done_before
        left = len(self._ends) - len(self._done)
        seconds = None if not fresh else self._elapsed().total_seconds() / fresh * left
        return Estimate(
            done=len(self._done), total=len(self._ends), rows_written=self._report.rows_written, seconds_left=seconds
        )

    def _resume(self, saved: dict) -> None:
        self._length = timedelta(microseconds=saved["piece"])
        self._done = set(saved["done"])
        self._report = replace(self._report, **{name: saved[name] for name in _COUNTS})

    def _paused(self) -> bool:
        paused = Switches(self._project.database, self._project.name).paused()
        return switch_name(self._view.name) in paused or EVERYTHING in paused

    def _cutoff(self) -> datetime | None:
        """What could be seen of the interval, if now all of it is in the store: nothing before its start is missing."""
        if self._project.ledger.is_redefined(self._view.name):
            return None  # values of the earlier definition are in the store until a run has loaded all
        before = self._project.ledger.last_cutoff(self._view.name, by=self._at)
        start, seen = self._claim.start, seen_until(self._project, self._view, self._claim.end)
        if start is None or (before is not None and start <= before):
            return max(seen, before or seen)
        source = self._project.catalog.source(self._view.source)
        history = self._project.offline.scan(source.name)
        oldest = history.select(pl.col(source.timestamp_field).min()).collect().item()
        return seen if oldest is None or oldest > start else None

    def _timed(self, *, state: str, cutoff: datetime | None = None) -> RunReport:
        return replace(self._report, state=state, cutoff=cutoff, seconds=self._elapsed().total_seconds())

    def _elapsed(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._began)


def _ends(claim: Claim, length: timedelta) -> list[datetime]:
    ends: list[datetime] = []
    at = claim.start
    while at is not None and at < claim.end:
        at = min(at + length, claim.end)
        ends.append(at)
    return ends


_COUNTS = ("rows_read", "rows_written", "rows_unchanged", "rows_skipped")
_NOTHING = dict.fromkeys(_COUNTS, 0)
