"""Comparing one view's served values with the recomputed ones, and finding out why some differ.

No difference is explained away: an explanation is a definite earlier or later state of the store, and the value is
computed again in that state and must come out equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import numpy as np
import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Catalog, Projection, StalePolicy, View
from tidemill.errors import TidemillError
from tidemill.materialize.ledger import SUCCEEDED, Ledger, Run
from tidemill.monitor.agreement import agree, same_but_for_type, statuses_agree
from tidemill.monitor.parity_report import Outcome
from tidemill.monitor.recompute import NEVER, Recomputation, Rows, ViewValues
from tidemill.monitor.served import ServedColumn

_MICROSECOND = timedelta(microseconds=1)
_MOMENT = 1_000_000  # between taking the time of a request and reading, or finishing a run and saying so
_CANDIDATES = 8  # how many late events of one key are taken away, the newest first
_FAR = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One feature as it was logged; a status is None where none was."""

    column: ServedColumn
    statuses: Sequence[str | None]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A state of the store that could explain differences: for each of `places` (rows, which may repeat) a cut-off and
    a request time, under some definitions. With `known`, only events known by then had been delivered."""

    outcome: Outcome
    again: Recomputation
    places: np.ndarray
    cutoff: np.ndarray
    at: np.ndarray
    known: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class ViewOutcomes:
    """For each feature an array of `Outcome` over the rows; what was recomputed, and the cut-offs it was taken at."""

    outcomes: Mapping[str, np.ndarray]
    recomputed: ViewValues
    cutoff: np.ndarray


class ViewComparison:
    """One view of one service over logged rows.

    `others` are further definitions of the project, tried where the present ones do not give the served value;
    `late_within` is how far delivery may lag behind the known times and still count as late data.
    """

    def __init__(
        self,
        again: Recomputation,
        projection: Projection,
        rows: Rows,
        served: Mapping[str, Served],
        *,
        ledger: Ledger,
        others: Sequence[Recomputation] = (),
        late_within: timedelta,
    ) -> None:
        self._again, self._projection, self._rows, self._served = again, projection, rows, served
        self._view = again.catalog.view(projection.view)
        self._ledger, self._others = ledger, others
        self._late = late_within // _MICROSECOND

    def outcomes(self) -> ViewOutcomes:
        everything = np.arange(len(self._rows))
        recomputed = self._recompute(self._again, everything, self._cutoff, self._rows.at)
        found = {
            name: np.where(self._agrees(name, everything, recomputed), Outcome.EQUAL, Outcome.UNEXPLAINED)
            for name in self._served
        }
        for name, served in self._served.items():
            same = same_but_for_type(served.column, recomputed.values[name]) & (found[name] != Outcome.EQUAL)
            found[name][same] = Outcome.TYPE
        for make in (self._during_runs, self._around_ttl, self._late_data, self._other_definitions):
            open_places = self._open(found)
            if not open_places.size:
                break
            for attempt in make(open_places):
                self._try(attempt, found)
        return ViewOutcomes(outcomes=found, recomputed=recomputed, cutoff=self._cutoff)

    @cached_property
    def _keys(self) -> pl.DataFrame:
        return self._again.keys(self._projection, self._rows)

    @cached_property
    def _cutoff(self) -> np.ndarray:
        return self._again.cutoffs(self._view, self._rows.at)

    def _open(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        unexplained = [outcomes == Outcome.UNEXPLAINED for outcomes in found.values()]
        return np.flatnonzero(np.logical_or.reduce(unexplained))

    def _recompute(
        self,
        again: Recomputation,
        places: np.ndarray,
        cutoff: np.ndarray,
        at: np.ndarray,
        known: np.ndarray | None = None,
    ) -> ViewValues:
        view = again.catalog.view(self._view.name)
        declared = {feature.name for feature in view.features}
        keys = self._keys if places.size == len(self._rows) else self._keys[places]
        return again.view(
            view, keys, [name for name in self._served if name in declared], at=at, cutoff=cutoff, known=known
        )

    def _try(self, attempt: Attempt, found: Mapping[str, np.ndarray]) -> None:
        values = self._recompute(attempt.again, attempt.places, attempt.cutoff, attempt.at, attempt.known)
        for name in values.values:
            agrees = self._agrees(name, attempt.places, values)
            places = attempt.places[agrees]
            found[name][places[found[name][places] == Outcome.UNEXPLAINED]] = attempt.outcome

    def _agrees(self, name: str, places: np.ndarray, now: ViewValues) -> np.ndarray:
        served = self._served[name]
        column = served.column.values.gather(places)
        right = agree(column, now.values[name]) & ~served.column.absent[places] & ~served.column.mistyped[places]
        statuses = [served.statuses[place] for place in places.tolist()]
        there = None if self._view.is_windowed else now.event_times != NEVER
        right &= statuses_agree(statuses, column, there)
        return right | self._withheld(column, places, now)

    def _withheld(self, column: pl.Series, places: np.ndarray, now: ViewValues) -> np.ndarray:
        """Served as null because the view says so of values older than its freshness objective."""
        freshness = self._view.freshness
        if freshness is None or freshness.policy is not StalePolicy.NULL:
            return np.zeros(places.size, dtype=np.bool_)
        limit = self._rows.at[places] - freshness.max_age // _MICROSECOND
        return column.is_null().to_numpy() & (now.event_times != NEVER) & (now.event_times < limit)

    def _during_runs(self, places: np.ndarray) -> Iterator[Attempt]:
        """A run was writing, or had just ended: what the store held before it, and what it held after."""
        at = self._rows.at[places]
        for state in _states_of_store(self._ledger.runs(self._view.name, limit=100_000)):
            near = (at >= state.begin - _MOMENT) & (at <= state.end + _MOMENT)
            if near.any():
                for cutoff in (state.before, state.after):
                    yield self._attempt(Outcome.WRITTEN_DURING_RUN, places[near], cutoff=np.full(near.sum(), cutoff))

    def _around_ttl(self, places: np.ndarray) -> Iterator[Attempt]:
        """The ttl counted from a moment earlier or later."""
        if self._view.ttl:
            for shift in (-_MOMENT, _MOMENT):
                yield self._attempt(Outcome.TTL, places, at=self._rows.at[places] + shift)

    def _late_data(self, places: np.ndarray) -> Iterator[Attempt]:
        """Before the newest events of the key were known, or with those that became known just after.

        A view that nothing keeps current is served as of its last run by hand, though it is trained on as of the
        request.
        """
        if self._view.schedule is None and self._view.stream is None:
            finished, cutoffs = self._ledger.cutoffs(self._view.name)
            newest = np.searchsorted(finished, self._rows.at[places], side="right") - 1
            if (newest >= 0).any():
                ran = newest >= 0
                yield self._attempt(Outcome.LATE_DATA, places[ran], cutoff=cutoffs[newest[ran]])
        candidates = _cutoffs_near(self._again, self._view, self._keys[places], self._cutoff[places], self._late)
        if candidates.height:
            chosen = places[candidates["place"].to_numpy()]
            known = candidates["cutoff"].to_numpy()
            # An undelivered event is taken away from a window that still ends at the request.
            cutoff = np.maximum(self._cutoff[chosen], known)
            at = np.maximum(self._rows.at[chosen], cutoff)
            yield self._attempt(Outcome.LATE_DATA, chosen, cutoff=cutoff, known=known, at=at)

    def _other_definitions(self, places: np.ndarray) -> Iterator[Attempt]:
        """Under the definitions before or after, where they define the view otherwise."""
        for other in self._others:
            if _defines_otherwise(other.catalog, self._again.catalog, self._view.name):
                try:
                    cutoff = other.cutoffs(other.catalog.view(self._view.name), self._rows.at[places])
                    yield self._attempt(Outcome.DEFINITION_CHANGED, places, cutoff=cutoff, again=other)
                except TidemillError:
                    continue  # those definitions cannot be computed any more, so they explain nothing

    def _attempt(
        self,
        outcome: Outcome,
        places: np.ndarray,
        *,
        cutoff: np.ndarray | None = None,
        at: np.ndarray | None = None,
        known: np.ndarray | None = None,
        again: Recomputation | None = None,
    ) -> Attempt:
        return Attempt(
            outcome=outcome,
            again=again or self._again,
            places=places,
            cutoff=self._cutoff[places] if cutoff is None else cutoff,
            at=self._rows.at[places] if at is None else at,
            known=known,
        )


@dataclass(frozen=True, kw_only=True)
class _Writing:
    """From `begin` to `end` the store was on its way from cut-off `before` to cut-off `after` (int64 microseconds)."""

    begin: int
    end: int
    before: int
    after: int


def _states_of_store(runs: Sequence[Run]) -> Iterator[_Writing]:
    """When each run was writing. One that failed leaves the store in between until the next one succeeds."""
    before, unfinished = NEVER, list[Run]()
    ended = [run for run in runs if run.state == SUCCEEDED and run.finished_at and run.cutoff]
    for run in sorted(ended, key=lambda run: (run.finished_at, run.id)):
        after, end = to_micros(run.cutoff), to_micros(run.finished_at)  # type: ignore[arg-type] - both are set
        yield _Writing(begin=to_micros(run.started_at), end=end, before=before, after=max(after, before))
        before = max(before, after)
    unfinished = [run for run in runs if run.state != SUCCEEDED]
    for run in unfinished:
        begin = to_micros(run.started_at)
        later = [one for one in ended if to_micros(one.finished_at) >= begin]  # type: ignore[arg-type]
        earlier = [to_micros(one.cutoff) for one in ended if to_micros(one.finished_at) < begin]  # type: ignore[arg-type]
        end = min((to_micros(one.finished_at) for one in later), default=_FAR - _MOMENT)  # type: ignore[arg-type]
        yield _Writing(begin=begin, end=end, before=max(earlier, default=NEVER), after=to_micros(run.end))


def _cutoffs_near(
    again: Recomputation, view: View, keys: pl.DataFrame, cutoff: np.ndarray, within: int
) -> pl.DataFrame:
    """Cut-offs at which a key's history was one event poorer or richer: `place` (row of `keys`) and `cutoff`."""
    source = again.catalog.source(view.source)
    known = pl.coalesce(source.known_column, source.event_column).dt.epoch("us")
    reachable = cutoff[cutoff > NEVER + within]
    if not reachable.size:
        return pl.DataFrame(schema={"place": pl.Int64, "cutoff": pl.Int64})
    asked = keys.with_columns(
        pl.Series("__place", np.arange(len(cutoff))), pl.Series("__cutoff", cutoff, dtype=pl.Int64)
    ).lazy()
    names = list(view.join_keys)
    events = (
        again.store.scan(view.source)
        .select(*(pl.col(name).cast(keys.schema[name], strict=False) for name in names), known.alias("__known"))
        .filter(pl.col("__known").is_between(int(reachable.min()) - within, int(reachable.max()) + within))
    )
    met = asked.join(events, on=names, how="inner") if names else asked.join(events, how="cross")
    distance = (pl.col("__known") - pl.col("__cutoff")).abs()
    return (
        met.filter(pl.col("__cutoff") > NEVER + within, distance <= within)
        .with_columns(distance.alias("__distance"))
        .select(
            pl.col("__place").alias("place"),
            pl.when(pl.col("__known") <= pl.col("__cutoff"))
            .then(pl.col("__known") - 1)
            .otherwise(pl.col("__known"))
            .alias("cutoff"),
            "__distance",
        )
        .unique(["place", "cutoff"])
        .sort("place", "__distance")
        .group_by("place", maintain_order=True)
        .head(_CANDIDATES)
        .select("place", "cutoff")
        .collect()
    )


def _defines_otherwise(one: Catalog, other: Catalog, view: str) -> bool:
    """Both define the view, and not alike."""
    if view not in {item.name for item in one.views}:
        return False
    a, b = one.view(view), other.view(view)
    return a != b or one.source(a.source) != other.source(b.source)
