"""Parity by proof: every value that was served is computed again from the offline store, and compared.

See section 7 of the semantics: a difference is classified, and nothing may remain unexplained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, Feature, OnDemandView, Projection, View
from tidemill.errors import TidemillError
from tidemill.extract.intervals import history_until
from tidemill.metadata.reports import ReportRepository
from tidemill.monitor.agreement import agree, same_but_for_type
from tidemill.monitor.explain import Served, ViewComparison, ViewOutcomes
from tidemill.monitor.parity_report import Difference, FeatureParity, Outcome, ParityReport
from tidemill.monitor.recompute import NEVER, Recomputation, Rows
from tidemill.monitor.served import documents, served_column

if TYPE_CHECKING:
    from tidemill.materialize.ledger import Ledger
    from tidemill.project import Project

LATE_WITHIN = timedelta(minutes=15)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = {Outcome.UNEXPLAINED: 3}
_OTHER_DEFINITIONS = 5


def verify(
    project: Project,
    *,
    model: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    at: datetime | None = None,
    late_within: timedelta = LATE_WITHIN,
) -> ParityReport:
    """Recompute every logged value of one model, or of all, served in `[start, end)`, and keep the report.

    `at` is when the check is made, by default the project's clock. Predictions later than the history of a pushed view
    reaches are left out, and a note says until when to extract. A difference that goes away when events of the
    last `late_within` are taken as not yet delivered is late data. Raises NotDefinedError for an unknown model.
    """
    if model is not None:
        project.catalog.model(model)
    log = project.predictions.scan(model, start, end)
    tally = _Tally()
    compared = []
    for (digest, service), part in log.group_by("catalog_digest", "service", maintain_order=True):
        catalog = _catalog(project, str(digest), part.height, tally)
        settled = _settled(project, catalog, str(service), part, tally)
        if not settled.is_empty():
            _compare_part(project, catalog, str(service), settled, late_within, tally)
            compared.append(settled)
    report = _report(pl.concat(compared) if compared else log.clear(), tally)
    ReportRepository(project.database, project.name).add(
        "parity", model or project.name, report.to_dict(), at=at or project.clock.now()
    )
    return report


@dataclass
class _Tally:
    """What has been found so far, by (view, feature)."""

    counts: dict[tuple[str, str], Counter[Outcome]] = field(default_factory=dict)
    examples: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, view: str, feature: str, outcomes: np.ndarray) -> None:
        values, counts = np.unique(outcomes, return_counts=True)
        tally = self.counts.setdefault((view, feature), Counter())
        tally.update({Outcome(int(v)): int(n) for v, n in zip(values, counts, strict=True)})

    def shown(self, view: str, feature: str, outcome: Outcome) -> int:
        return sum((e.view, e.feature, e.outcome) == (view, feature, outcome) for e in self.examples)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Logged rows of one service under one catalog, read."""

    frame: pl.DataFrame
    rows: Rows
    features: list[dict[str, Any]]
    statuses: list[dict[str, Any]]

    def served(self, feature: Feature, projection: Projection) -> Served:
        name = feature.name
        if self.features and name not in self.features[0] and f"{projection.name}__{name}" in self.features[0]:
            name = f"{projection.name}__{name}"
        return Served(
            column=served_column(self.features, feature, name=name),
            statuses=[statuses.get(name) for statuses in self.statuses],
        )


def _settled(project: Project, catalog: Catalog, service: str, log: pl.DataFrame, tally: _Tally) -> pl.DataFrame:
    """The predictions whose events have landed in history: what was pushed is extracted some time after."""
    read = {projection.view for projection in catalog.service(service).projections}
    sources = {view.source for view in catalog.views if view.name in read and view.is_pushed}
    reached = {name: history_until(project.root, catalog.source(name)) for name in sorted(sources)}
    known = {name: until for name, until in reached.items() if until is not None}
    if not known:
        return log
    first, until = min(known.items(), key=lambda item: item[1])
    settled = log.filter(pl.col("at") < until)
    if settled.height < log.height:
        tally.notes.append(
            f"{log.height - settled.height:,} predictions are not compared yet: the history of {first} reaches until "
            f"{until:%Y-%m-%d %H:%M} UTC. Extract it until {log['at'].max():%Y-%m-%d %H:%M} or later."
        )
    return settled


def _compare_part(
    project: Project, catalog: Catalog, service: str, frame: pl.DataFrame, late_within: timedelta, tally: _Tally
) -> None:
    again = _recomputation(project, catalog)
    others = [_recomputation(project, other) for other in _other_catalogs(project, catalog)]
    part = _read(frame)
    done: dict[str, tuple[dict[str, Served], ViewOutcomes]] = {}
    projections = catalog.service(service).projections
    for projection in projections:
        if not catalog.is_on_demand(projection.view):
            view = catalog.view(projection.view)
            served = {name: part.served(view.feature(name), projection) for name in projection.features}
            comparison = ViewComparison(
                again, projection, part.rows, served, ledger=project.ledger, others=others, late_within=late_within
            )
            done[projection.name] = (served, comparison.outcomes())
            _note_view(part, projection, *done[projection.name], tally)
            tally.notes += _advice(project.ledger, catalog, view, part.rows, done[projection.name][1])
    for projection in projections:
        if catalog.is_on_demand(projection.view):
            _compare_on_demand(again, part, projection, projections, done, tally)


def _advice(ledger: Ledger, catalog: Catalog, view: View, rows: Rows, found: ViewOutcomes) -> Iterator[str]:
    """What was not said or not done about a view, where that may be why values came out otherwise."""
    if view.schedule is None and view.stream is None and _count(found, Outcome.LATE_DATA):
        yield (
            f"{view.name} has neither a schedule nor a stream: it was served as of its last run by hand, and "
            "is trained on as of the request. Give it a schedule."
        )
    if not _count(found, Outcome.UNEXPLAINED):
        return
    if catalog.source(view.source).known_field is None:
        yield (
            f"{view.source} has no created_timestamp_column: its rows count as known when they happened, so one that "
            f"came later looks as though serving had missed it ({view.name}). Record when rows arrive; name the column."
        )
    loaded, _ = ledger.cutoffs(view.name)
    if view.is_pushed and not np.any(loaded <= rows.at.min()):
        yield (
            f"{view.name} had not been loaded when it was first asked: what happened before the first push was "
            "missing. Run `tidemill materialize` before a view is served."
        )


def _compare_on_demand(
    again: Recomputation,
    part: _Part,
    projection: Projection,
    projections: Sequence[Projection],
    done: Mapping[str, tuple[dict[str, Served], ViewOutcomes]],
    tally: _Tally,
) -> None:
    view = again.catalog.on_demand_view(projection.view)
    served = {name: part.served(view.feature(name), projection) for name in projection.features}
    try:
        inputs = {(i.view, i.feature): _input(again, part, i.view, i.feature, projections, done) for i in view.inputs}
        recomputed = again.on_demand(view, inputs, part.rows)
    except TidemillError as error:
        tally.notes.append(f"{view.name} could not be computed again: {error}")
        for name in projection.features:
            tally.add(view.name, name, np.full(len(part.rows), Outcome.DEFINITION_CHANGED))
        return
    blame = _blame(view, done, len(part.rows))
    for name, one in served.items():
        equal = agree(one.column.values, recomputed[name]) & ~one.column.absent & ~one.column.mistyped
        outcomes = np.where(equal, Outcome.EQUAL, blame)
        outcomes[same_but_for_type(one.column, recomputed[name]) & ~equal] = Outcome.TYPE
        tally.add(view.name, name, outcomes)
        _show(part, view.name, name, outcomes, one, recomputed[name], None, tally)


def _input(
    again: Recomputation,
    part: _Part,
    view: str,
    feature: str,
    projections: Sequence[Projection],
    done: Mapping[str, tuple[dict[str, Served], ViewOutcomes]],
) -> pl.Series:
    """An input as it was recomputed already, or now where the service does not serve it itself."""
    for projection in projections:
        if projection.view == view and projection.name in done and feature in projection.features:
            return done[projection.name][1].recomputed.values[feature]
    projection = next((p for p in projections if p.view == view), Projection(view=view, features=(feature,)))
    definition = again.catalog.view(view)
    keys, at = again.keys(projection, part.rows), part.rows.at
    return again.view(definition, keys, [feature], at=at, cutoff=again.cutoffs(definition, at)).values[feature]


def _blame(view: OnDemandView, done: Mapping[str, tuple[dict[str, Served], ViewOutcomes]], rows: int) -> np.ndarray:
    """Why an on-demand value differs: as its input that differs does, else unexplained."""
    blame = np.full(rows, Outcome.EQUAL)
    for _, found in done.values():
        for source in view.inputs:
            if source.feature in found.outcomes:
                blame = np.maximum(blame, found.outcomes[source.feature])
    return np.where(blame == Outcome.EQUAL, Outcome.UNEXPLAINED, blame)


def _note_view(
    part: _Part, projection: Projection, served: Mapping[str, Served], found: ViewOutcomes, tally: _Tally
) -> None:
    for name, outcomes in found.outcomes.items():
        tally.add(projection.name, name, outcomes)
        values = found.recomputed.values[name]
        _show(part, projection.name, name, outcomes, served[name], values, found.cutoff, tally)


def _count(found: ViewOutcomes, outcome: Outcome) -> int:
    return sum(int((outcomes == outcome).sum()) for outcomes in found.outcomes.values())


def _show(
    part: _Part,
    view: str,
    feature: str,
    outcomes: np.ndarray,
    served: Served,
    recomputed: pl.Series,
    cutoff: np.ndarray | None,
    tally: _Tally,
) -> None:
    """Keep a few examples of each kind of difference."""
    for outcome in Outcome:
        if outcome is Outcome.EQUAL:
            continue
        room = _SHOWN.get(outcome, 1) - tally.shown(view, feature, outcome)
        for place in np.flatnonzero(outcomes == outcome)[: max(room, 0)].tolist():
            row = part.frame.row(place, named=True)
            status = served.statuses[place]
            tally.examples.append(
                Difference(
                    feature=feature,
                    view=view,
                    outcome=outcome,
                    prediction_id=row["prediction_id"],
                    at=row["at"],
                    keys=row["keys"],
                    served="absent" if served.column.absent[place] else _text(served.column.raw[place], status),
                    recomputed=_text(recomputed[place], None),
                    cutoff=None if cutoff is None or cutoff[place] == NEVER else _instant(int(cutoff[place])),
                )
            )


def _text(value: Any, status: str | None) -> str:
    return repr(value) if status in (None, "PRESENT") else f"{value!r} ({status})"


def _read(frame: pl.DataFrame) -> _Part:
    rows = Rows(
        at=frame["at"].dt.epoch("us").to_numpy(), keys=documents(frame["keys"]), request=documents(frame["request"])
    )
    return _Part(frame=frame, rows=rows, features=documents(frame["features"]), statuses=documents(frame["statuses"]))


def _catalog(project: Project, digest: str, rows: int, tally: _Tally) -> Catalog:
    if digest == project.catalog.digest:
        return project.catalog
    found = project.catalogs.by_digest(digest)
    if found is None:
        tally.notes.append(
            f"{rows} predictions were made under definitions {digest[:12]}, which this project does not keep; they "
            "were compared with the present ones."
        )
    return found or project.catalog


def _other_catalogs(project: Project, catalog: Catalog) -> Iterator[Catalog]:
    """The newest further definitions of the project."""
    history = [applied.catalog for applied in project.catalogs.history(limit=_OTHER_DEFINITIONS + 1)]
    return (other for other in history if other.digest != catalog.digest)


def _recomputation(project: Project, catalog: Catalog) -> Recomputation:
    if catalog.digest == project.catalog.digest:
        return Recomputation(store=project.offline, catalog=catalog, root=project.root)
    from tidemill.offline.store import OfflineStore

    store = OfflineStore(root=project.root, catalog=catalog, ledger=project.ledger, settings=project.settings)
    return Recomputation(store=store, catalog=catalog, root=project.root)


def _report(log: pl.DataFrame, tally: _Tally) -> ParityReport:
    return ParityReport(
        models=tuple(sorted(log["model"].unique().to_list())),
        start=log["at"].min(),  # type: ignore[arg-type] - an instant or None
        end=log["at"].max(),  # type: ignore[arg-type]
        predictions=log.height,
        features=tuple(
            FeatureParity(feature=feature, view=view, counts=dict(counts))
            for (view, feature), counts in tally.counts.items()
        ),
        examples=tuple(sorted(tally.examples, key=lambda e: -e.outcome)),
        notes=tuple(dict.fromkeys(tally.notes)),
    )


def _instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
