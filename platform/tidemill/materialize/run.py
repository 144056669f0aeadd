"""Materialization: the newest value of every entity, from the offline store into the online one.

A run covers one view and one interval and ends in exactly one ledger row. What it does may be done twice without harm
(the newest fact wins, whoever writes it), so a run that was killed or failed is simply done again: from the chunk it
had reached where that is sure to be right (see `trail`), else from its first.
"""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING

from tidemill.clock import ended, to_micros
from tidemill.definitions.catalog import View
from tidemill.definitions.stored import has_view, store_alike
from tidemill.errors import ConflictError, InputError, TidemillError
from tidemill.materialize.chunks import Chunk, chunks_of
from tidemill.materialize.dry_run import would_write
from tidemill.materialize.lease import kept
from tidemill.materialize.ledger import BACKFILL, LEASE
from tidemill.materialize.reach import reached, refuse_empty, seen_until
from tidemill.materialize.records import Claim
from tidemill.materialize.report import CURRENT, FAILED, HELD, SUCCEEDED, RunReport
from tidemill.materialize.trail import Trail
from tidemill.online.deletion import delete_view

if TYPE_CHECKING:
    import polars as pl

    from tidemill.offline.latest import Latest
    from tidemill.online.writer import WriteResult
    from tidemill.project import Project

log = logging.getLogger(__name__)

_EVER = datetime(1, 1, 1, tzinfo=UTC)
_JUST = timedelta(microseconds=1)
_ROWS_TOLD = 200_000  # rows written between two words of progress: a second or two

Tell = Callable[[str, float], object]
"""Hears how far a view's run is: its name, and the share of it that is done, 0 to 1."""


class Materializer:
    """Runs for one project. Stateless between calls: what was done is in the ledger. `tell` hears of progress."""

    def __init__(self, project: Project, *, lease: timedelta = LEASE, tell: Tell | None = None) -> None:
        self._project = project
        self._lease = lease
        self._tell = tell

    def materialize(
        self,
        *,
        until: datetime,
        at: datetime,
        views: Sequence[str] | None = None,
        kind: str = "manual",
        dry_run: bool = False,
        again: bool = False,
    ) -> list[RunReport]:
        """Bring the online store up to `until`, view by view. A view that fails does not stop the others.

        Args:
            until: the new cut-off; facts after it, or known after it, are left for a later run.
            at: now.
            views: default every view that is kept online.
            kind: what the ledger says about why.
            dry_run: only count what would be written; see `would_write`.
            again: load all of it anew, as after Redis has lost its data.

        Raises NotDefinedError for an unknown view, InputError for an interval in the future or a view that is not
        kept online, UnavailableError where the ledger itself does not answer.
        """
        if until > at:
            raise InputError(
                f"The interval ends in the future: {until.isoformat()} is after {at.isoformat()}.",
                hint="Materialize up to now at the latest.",
            )
        chosen = self._chosen(views)
        if dry_run:
            return [report for view in chosen for report in would_write(self._project, view, ends=[until], at=at)]
        for view in chosen if again else ():
            self._project.ledger.forget(view.name, at=at)
        plain = [view for view in chosen if not _has_tiles(view)]
        tiled = [view for view in chosen if _has_tiles(view)]
        reports = [report for view in plain for report in self._run_plain(view, until=until, at=at, kind=kind)]
        return reports + self._bootstrap(tiled, until=until, at=at)

    def _chosen(self, names: Sequence[str] | None) -> list[View]:
        catalog = self._project.catalog
        if names is None:
            return [view for view in catalog.views if view.online]
        views = [catalog.view(name) for name in names]
        for view in views:
            if not view.online:
                raise InputError(
                    f"View {view.name!r} is not kept online.", hint="Declare it with online=True and apply."
                )
        return views

    def _run_plain(self, view: View, *, until: datetime, at: datetime, kind: str) -> list[RunReport]:
        reports, now = self._end_unfinished(view, at), reached(self._project, view, at)
        is_done = now.has_done(until)
        if is_done and now.has_seen(seen_until(self._project, view, until)):
            return reports or [RunReport(view=view.name, start=now.cutoff, end=until, state=CURRENT, cutoff=now.cutoff)]
        start = now.cutoff if is_done else now.end
        return [*reports, self.run_interval(view, start=start, end=until, at=at, kind=kind)]

    def _end_unfinished(self, view: View, at: datetime) -> list[RunReport]:
        """Intervals whose worker died are done first, so that every run that began also ends."""
        left = [run for run in self._project.ledger.unfinished(view.name, at=at) if run.kind != BACKFILL]
        outdated = [run for run in left if not self._stored_alike(view, run.catalog_digest)]
        for run in outdated:
            error = "Its worker ended before it did, and the view was defined anew; the next run loads all of it again."
            if self._project.ledger.give_up(run, error=error, at=at):
                self._project.ledger.forget(view.name, at=at, redefined=True)
        return [
            self.run_interval(view, start=run.start, end=run.end, at=at, kind=run.kind)
            for run in left
            if run not in outdated
        ]

    def _stored_alike(self, view: View, digest: str) -> bool:
        """Whether a run by other definitions wrote what one by ours writes."""
        catalog = self._project.catalog
        if digest in ("", catalog.digest):
            return True
        other = self._project.catalogs.by_digest(digest)
        return other is not None and store_alike(other, catalog, view.name)

    def run_interval(
        self, view: View, *, start: datetime | None, end: datetime, at: datetime, kind: str = "manual"
    ) -> RunReport:
        """Claim one interval of one view and do it. The report says `held` where another worker has it or had it."""
        ledger, began = self._project.ledger, time.monotonic()
        claim = ledger.claim(
            view.name,
            start=start,
            end=end,
            at=at,
            lease=self._lease,
            kind=kind,
            catalog_digest=self._project.catalog.digest,
        )
        if claim is None:
            return RunReport(view=view.name, start=start, end=end, state=HELD)
        with self.recorded(claim, at, began):
            with kept(ledger, claim, at=at):
                refuse_empty(self._project, view)
                loaded = ledger.last_cutoff(view.name, by=at)
                cutoff = max(seen_until(self._project, view, end), loaded or _EVER)
                if loaded is None and not view.is_pushed and ledger.is_redefined(view.name):
                    report = self._replace(view, claim, at, began, cutoff=cutoff)
                else:
                    report = self._write_chunks(view, claim, at, began, loaded=loaded, cutoff=cutoff)
                self.refuse_outdated(view, at)
            ledger.succeed(
                claim,
                cutoff=cutoff,
                rows_read=report.rows_read,
                rows_written=report.rows_written,
                rows_skipped=report.rows_skipped,
                at=self.finished(at, began),
            )
            return replace(report, state=SUCCEEDED, cutoff=cutoff, seconds=time.monotonic() - began)
        return self.failure(claim, began)

    def failure(self, claim: Claim, began: float) -> RunReport:
        run = self._project.ledger.run(claim.id)
        lost = "The run was taken over by another worker, after this one had been silent for longer than its lease."
        return RunReport(
            view=claim.view,
            start=claim.start,
            end=claim.end,
            state=FAILED,
            error=run.error if run.state == FAILED and run.claimed_by == claim.by else lost,
            seconds=time.monotonic() - began,
        )

    def _replace(self, view: View, claim: Claim, at: datetime, began: float, *, cutoff: datetime) -> RunReport:
        """Load all of a view that was defined anew, and delete what only its earlier definition had.

        That is told by when it was learned: what is loaded now is learned later than all that was there. What is
        deleted may have hidden values of ours that happened earlier, so that all is written once more then.
        """
        online, learned = self._project.online, at + _JUST
        report = self._write_chunks(view, claim, at, began, loaded=None, cutoff=cutoff, learned=learned)
        # What was noted does not hold from here on.
        self._project.ledger.save_progress(claim, None, at=self.finished(at, began))
        if not delete_view(online.resp, online.catalog, view, learned_before=to_micros(learned)):
            return report
        anew = replace(claim, progress=None)
        again = self._write_chunks(view, anew, at, began, loaded=None, cutoff=cutoff, learned=learned)
        return replace(
            again, rows_written=report.rows_written + again.rows_written, rows_unchanged=report.rows_unchanged
        )

    def _write_chunks(
        self,
        view: View,
        claim: Claim,
        at: datetime,
        began: float,
        *,
        loaded: datetime | None,
        cutoff: datetime,
        learned: datetime | None = None,
    ) -> RunReport:
        """What lies between two cut-offs, in pieces that fit the memory limit, each as if it were a run of its own.

        It is learned at the end of the run's interval. Where it is said when, what an earlier try wrote was learned
        too early, and nobody goes on from there.
        """
        trail = Trail(self._project, view, claim, loaded=loaded, begins_anew=learned is not None)
        report, start = trail.followed(at=self.finished(at, began))
        chunks = self._chunks(view, start, cutoff)
        if len(chunks) > 1:
            trail.begin()
        for number, chunk in enumerate(chunks):
            for share in range(chunk.shares):
                found = self._rows_of(view, start, chunk, share)
                done = (number + share / chunk.shares) / len(chunks)
                part = 1 / len(chunks) / chunk.shares
                result = self._write(view, found.frame, learned or claim.end, done=done, part=part)
                report = report.with_part(found, result)
            start = chunk.end
            if start < cutoff:
                trail.note(report, start, at=self.finished(at, began))
        trail.end()
        return report

    def _chunks(self, view: View, start: datetime | None, cutoff: datetime) -> list[Chunk]:
        if start is not None and start >= cutoff:
            return []
        limit = self._project.settings.memory_limit
        return list(chunks_of(self._project.offline, view, start, cutoff, limit=limit))

    def _rows_of(self, view: View, start: datetime | None, chunk: Chunk, share: int) -> Latest:
        part = (share, chunk.shares) if chunk.shares > 1 else None
        offline = self._project.offline
        return offline.latest_rows(view.name, start=start, end=chunk.end, known_after=start, share=part)

    def _write(self, view: View, rows: pl.DataFrame, learned: datetime, *, done: float, part: float) -> WriteResult:
        """Write a part of a run whose share `done` has been written; bit by bit where somebody hears of it."""
        online, tell = self._project.online, self._tell
        if tell is None or rows.is_empty():
            return online.write(view.name, rows, learned=learned)
        results, sent = [], 0
        for piece in rows.iter_slices(_ROWS_TOLD):
            results.append(online.write(view.name, piece, learned=learned))
            sent += piece.height
            tell(view.name, done + part * sent / rows.height)
        return reduce(operator.add, results)

    def _bootstrap(self, views: Sequence[View], *, until: datetime, at: datetime) -> list[RunReport]:
        """Tiles of views that never had any. From then on events keep them current, and there is nothing to run."""
        ledger = self._project.ledger
        built = {view.name: ledger.last_cutoff(view.name) for view in views}
        reports = [
            RunReport(view=name, start=None, end=until, state=CURRENT, cutoff=cutoff)
            for name, cutoff in built.items()
            if cutoff is not None
        ]
        missing = [view for view in views if built[view.name] is None]
        for stream in dict.fromkeys(view.stream for view in missing if view.stream is not None):
            together = [view for view in missing if view.stream == stream]
            reports += self._build_tiles(stream, together, until=until, at=at)
        return reports

    def _build_tiles(self, stream: str, views: Sequence[View], *, until: datetime, at: datetime) -> list[RunReport]:
        """All windows over one stream share its history, so they are built in one pass, with a ledger row each."""
        ledger, digest = self._project.ledger, self._project.catalog.digest
        claims: list[Claim] = []
        reports: list[RunReport] = []
        for view in views:
            claim = ledger.claim(
                view.name, start=None, end=until, at=at, lease=self._lease, kind="rebuild", catalog_digest=digest
            )
            if claim is None:
                reports.append(RunReport(view=view.name, start=None, end=until, state=HELD))
            else:
                claims.append(claim)
        return reports + (self._rebuild(stream, claims, until=until, at=at) if claims else [])

    def _rebuild(self, stream: str, claims: Sequence[Claim], *, until: datetime, at: datetime) -> list[RunReport]:
        from tidemill.online.tile_rebuild import rebuild_stream

        began, ledger = time.monotonic(), self._project.ledger
        with self.recorded(claims[0], at, began, *claims[1:]):
            with kept(ledger, *claims, at=at):
                result = rebuild_stream(self._project.online, stream, offline=self._project.offline, at=until)
                for claim in claims:
                    self.refuse_outdated(self._project.catalog.view(claim.view), at)
            for claim in claims:
                ledger.succeed(
                    claim,
                    cutoff=until,
                    rows_read=result.events,
                    rows_written=result.tiles,
                    rows_skipped=0,
                    at=self.finished(at, began),
                )
            return [
                RunReport(
                    view=claim.view,
                    start=None,
                    end=until,
                    state=SUCCEEDED,
                    cutoff=until,
                    rows_read=result.events,
                    rows_written=result.tiles,
                    seconds=time.monotonic() - began,
                )
                for claim in claims
            ]
        return [self.failure(claim, began) for claim in claims]

    def refuse_outdated(self, view: View, at: datetime) -> None:
        """End a run in the ledger as what it is where its view was removed or defined anew while it ran.

        Raises ConflictError. What a removed view would leave nobody would ever delete; what was written by old
        definitions is loaded again by the new ones.
        """
        newest = self._project.catalogs.newest()
        if newest is None or newest.catalog.digest == self._project.catalog.digest:
            return
        if not has_view(newest.catalog, view.name):
            self._project.online.delete_view(view.name)
            raise ConflictError(f"View {view.name!r} was removed while it ran; what had been written is gone.")
        if not store_alike(newest.catalog, self._project.catalog, view.name):
            self._project.ledger.forget(view.name, at=at, redefined=True)
            raise ConflictError(f"View {view.name!r} was defined anew while it ran; its next run loads all of it.")

    @contextmanager
    def recorded(self, claim: Claim, at: datetime, began: float, *more: Claim) -> Iterator[None]:
        """Whatever ends a run is written into its ledger row. Our own errors end there; a defect is raised again."""
        try:
            yield
        except Exception as error:
            log.warning(
                "Materializing %s up to %s failed: %s", claim.view, claim.end, error, extra={"action": "run_failed"}
            )
            for one in (claim, *more):
                with suppress(ConflictError):  # another worker has the row now, and ends it
                    self._project.ledger.fail(one, error=_cause(error), at=self.finished(at, began))
            if not isinstance(error, TidemillError):
                raise

    def finished(self, at: datetime, began: float) -> datetime:
        """When work ends that began at `at`, `began` by `time.monotonic()`."""
        return ended(self._project.clock, at, began)


def _has_tiles(view: View) -> bool:
    return view.is_windowed and view.is_pushed


def _cause(error: Exception) -> str:
    return str(error) if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
