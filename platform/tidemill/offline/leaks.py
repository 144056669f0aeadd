"""Which features could know the future, and why.

A training set of Tidemill never looks past a row's cut-off, so what is left are definitions that say the wrong thing
about time. Four signs give them away:

- `known_after_request`: the chosen rows carry a time of recording (arrived, created, loaded ...) that lies after the
  request, and the source does not declare it as the known time;
- `event_ahead_of_knowledge`: a source without a known time holds events later than its file was written, or than now;
- `fresher_than_its_schedule`: without a known time, a scheduled view's values change when the cut-off moves back by as
  long as its runs take (as declared, or as the ledger shows them to take longer);
- `too_predictive`: one feature alone tells the outcome better than any honest feature does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Feature, Source, View
from tidemill.definitions.types import ValueType
from tidemill.offline.files import SourceFiles
from tidemill.offline.instants import NEVER, Instants, rescale
from tidemill.offline.scan import scan_source
from tidemill.offline.selection import Selection, ViewSelection, select
from tidemill.offline.spine import Spine

if TYPE_CHECKING:
    from tidemill.offline.store import OfflineStore

AUC_LIMIT = 0.9
"""Above this, one feature alone is taken for a leak. Honest features of real tasks stay well below."""
SHARE_LIMIT = 0.001
"""Fewer rows than this share are taken for noise, such as two clocks that differ by a second."""
CHANGED_LIMIT = 0.05

_RECORDED = re.compile(
    r"(known|created|recorded|ingested|loaded|inserted|updated|modified|arriv|landed|received|finish|complet|closed|"
    r"settled|resolved|end)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A feature that could know the future: which sign says so, the evidence in words, and its size from 0 to 1."""

    feature: str
    view: str
    kind: str
    evidence: str
    size: float


def find_leaks(
    store: OfflineStore,
    features: str | Sequence[str],
    spine: Any,
    *,
    at: datetime,
    label: str | None = None,
    request: Sequence[str] = (),
    time_column: str | None = None,
    sample: int = 50_000,
    seed: int = 0,
) -> list[Leak]:
    """Look for each sign, on a sample of the spine; strongest first.

    Args:
        store: where the features' history lies.
        features: a service, or references.
        spine: rows with keys, request time and, for the fourth sign, the label.
        at: now; no event can honestly be later.
        label: the spine's column with the outcome, 0 or 1.
        request: spine columns that are features too.
        time_column: as for a training set.
        sample: how many rows of the spine to look at.
        seed: chooses the sample.
    """
    frame = _sample(spine if isinstance(spine, pl.DataFrame) else pl.DataFrame(spine), sample, seed)
    asked = frame if label is None else frame.drop(label)
    training_set = store.training_set(features, asked, time_column=time_column)
    selection = select(store.catalog, features)
    found: list[Leak] = []
    for item in selection.views:
        found += _of_view(store, item, training_set.rows, at)
    if label is not None:
        columns = training_set.collect().select(*request, *training_set.feature_names)
        found += _too_predictive(columns, frame[label], _views_of(selection))
    return sorted(found, key=lambda leak: (-leak.size, leak.view, leak.feature, leak.kind))


def _of_view(store: OfflineStore, item: ViewSelection, spine: Spine, at: datetime) -> Iterator[Leak]:
    source = store.catalog.source(item.view.source)
    names = [feature.name for feature in item.features]
    signs = [*_known_after_request(store, item, source, spine)]
    if source.known_field is None:
        signs += [*_event_ahead(store, source, at), *_fresher_than_schedule(store, item, spine)]
    for kind, evidence, size in signs:
        for name in names:
            yield Leak(feature=name, view=item.alias, kind=kind, evidence=evidence, size=size)


_Sign = tuple[str, str, float]


def _known_after_request(store: OfflineStore, item: ViewSelection, source: Source, spine: Spine) -> Iterator[_Sign]:
    """Undeclared times of recording in the chosen rows that lie after the request."""
    mapping = dict(source.field_mapping)
    declared = {mapping.get(name, name) for name in (source.timestamp_field, source.known_field) if name is not None}
    times = [
        name
        for name, dtype in store.scan(source.name).collect_schema().items()
        if isinstance(dtype, pl.Datetime | pl.Date) and name not in declared and _RECORDED.search(name)
    ]
    if not times:
        return
    rows = _chosen_rows(store, item, spine, times)
    request = pl.Series(rescale(spine.instants, spine.unit, "us")).cast(pl.Datetime("us", "UTC"))
    for name in times:
        later = (rows[name] > request).fill_null(False)
        share = _share(later)
        if share > SHARE_LIMIT:
            evidence = (
                f"{share:.1%} of the values come from rows whose {name!r} is after the request; declare it as the "
                f"known time of source {source.name!r}"
            )
            yield "known_after_request", evidence, share


def _chosen_rows(store: OfflineStore, item: ViewSelection, spine: Spine, columns: Sequence[str]) -> pl.DataFrame:
    """Other columns of the rows that a view's values come from (of a windowed view: the newest event)."""
    features = tuple(Feature(name=name, dtype=ValueType.UNIX_TIMESTAMP) for name in columns)
    view = replace(item.view, features=features, aggregations=())
    return store.values_of(view, spine.keys(dict(item.keys), view=view.name), *_asked(store, item.view, spine))


def _asked(store: OfflineStore, view: View, spine: Spine) -> tuple[Instants, Instants]:
    at = rescale(spine.instants, spine.unit, "us")
    return at, store.cutoffs(view.name, at)


def _event_ahead(store: OfflineStore, source: Source, at: datetime) -> Iterator[_Sign]:
    """Events later than now, or than the moment their file was written: nobody can have known them."""
    files = store.source_files(source.name)
    mapping = dict(source.field_mapping)
    event = mapping.get(source.timestamp_field, source.timestamp_field)
    ahead, newest = 0, NEVER
    for file in files.files:
        written = to_micros(at)
        if file.filesystem is None:
            written = min(written, int(Path(file.path).stat().st_mtime * 1_000_000))
        rows = _rows_after(SourceFiles(source, [file], where=files.where), event, written)
        ahead += rows.height
        newest = max([newest, *rows["at"].to_list()])
    share = ahead / max(files.rows, 1)
    if share > SHARE_LIMIT:
        evidence = (
            f"{share:.1%} of the rows of source {source.name!r} have an event time after they were written, and it "
            "declares no known time; name the column that says when a row could be known"
        )
        yield "event_ahead_of_knowledge", evidence, share


def _rows_after(files: SourceFiles, event: str, written: int) -> pl.DataFrame:
    instants = scan_source(files, {}).select(pl.col(event).to_physical().alias("at"))
    return instants.filter(pl.col("at") > written).collect()


def _fresher_than_schedule(store: OfflineStore, item: ViewSelection, spine: Spine) -> Iterator[_Sign]:
    """Values that a run could only just have seen: they change when the cut-off moves back by a run's length."""
    view = item.view
    if view.schedule is None or not len(spine):
        return
    lag = max(int(view.schedule.lag.total_seconds() * 1e6), store.usual_run(view.name))
    if lag == 0:
        return
    at, cutoff = _asked(store, view, spine)
    keys = spine.keys(dict(item.keys), view=view.name)
    now = store.values_of(view, keys, at, cutoff)
    before = store.values_of(view, keys, at, np.where(cutoff == NEVER, NEVER, cutoff - lag))
    for feature in item.features:
        changed = _share(now[feature.name].ne_missing(before[feature.name]))
        if changed > CHANGED_LIMIT:
            evidence = (
                f"{changed:.1%} of the values change when the cut-off moves back by {lag / 1e6:,.0f} s, the time a run "
                f"takes, and source {view.source!r} declares no known time"
            )
            yield "fresher_than_its_schedule", evidence, changed
            return


def _too_predictive(columns: pl.DataFrame, label: pl.Series, views: dict[str, str]) -> Iterator[Leak]:
    outcome = label.cast(pl.Float64)
    if outcome.n_unique() < 2:
        return
    for column in columns.get_columns():
        power = predictive_power(column, outcome)
        if power > AUC_LIMIT:
            evidence = f"this feature alone reaches a ROC AUC of {power:.3f}; no honest one goes beyond {AUC_LIMIT}"
            view = views.get(column.name, "request")
            yield Leak(feature=column.name, view=view, kind="too_predictive", evidence=evidence, size=power)


def predictive_power(column: pl.Series, outcome: pl.Series) -> float:
    """The ROC AUC of one feature alone, whichever way it points; 0.5 says nothing, 1 says everything.

    Text is scored by the mean outcome of its value among the other half of the rows, so that a name that occurs once
    tells nothing. That a value is missing counts as a value of its own.
    """
    missing = column.is_null() | (column.is_nan().fill_null(False) if column.dtype.is_float() else False)
    scores = [missing.cast(pl.Float64)]
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        scores.append(column.cast(pl.Float64).fill_nan(None))
    elif column.dtype.is_temporal():
        scores.append(column.to_physical().cast(pl.Float64))
    elif isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        scores.append(_mean_elsewhere(column.cast(pl.String), outcome))
    return max(_folded_auc(score, outcome) for score in scores)


def _mean_elsewhere(column: pl.Series, outcome: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"value": column, "outcome": outcome}).with_columns(half=pl.int_range(pl.len()) % 2)
    means = frame.group_by("value", (1 - pl.col("half")).alias("half")).agg(pl.col("outcome").mean().alias("score"))
    joined = frame.join(means, on=["value", "half"], how="left", maintain_order="left", nulls_equal=True)
    return joined["score"].fill_null(outcome.mean())


def _folded_auc(score: pl.Series, outcome: pl.Series) -> float:
    """Mann and Whitney's statistic over the rows that have a score, on the better side of a half."""
    have = score.is_not_null() & outcome.is_not_null()
    ranks, positive = score.filter(have).rank("average"), outcome.filter(have) > 0
    hits = int(positive.sum())
    misses = len(positive) - hits
    if hits == 0 or misses == 0:
        return 0.5
    auc = (float(ranks.filter(positive).sum()) - hits * (hits + 1) / 2) / (hits * misses)
    return max(auc, 1 - auc)


def _views_of(selection: Selection) -> dict[str, str]:
    return {output.name: output.source for output in selection.outputs}


def _share(rows: pl.Series) -> float:
    """How many of the rows are true, from 0 to 1."""
    return int(rows.sum()) / max(len(rows), 1)


def _sample(frame: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    if frame.height <= rows:
        return frame
    chosen = np.sort(np.random.default_rng(seed).choice(frame.height, rows, replace=False))
    return frame[chosen]
