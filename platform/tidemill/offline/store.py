"""The offline store: history on files, answered point in time. See `docs/` for what a value means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, Feature, View
from tidemill.definitions.on_demand import evaluate, gather_inputs, input_types
from tidemill.definitions.series import declared_series
from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.offline.append import append_rows, as_frame, find_appended
from tidemill.offline.cutoffs import served_cutoffs
from tidemill.offline.files import SourceFiles
from tidemill.offline.history import Asked, History
from tidemill.offline.instants import NEVER, Instants, Unit, finer, rescale, to_unit
from tidemill.offline.invariants import check_types, check_winners
from tidemill.offline.keys import KeyTypeError
from tidemill.offline.latest import EVENT_TIME, Latest, interval_of, newest_rows
from tidemill.offline.lookup import Winners
from tidemill.offline.scan import as_datetimes, declared_types, scan_source
from tidemill.offline.selection import Selection, ViewSelection, select
from tidemill.offline.spine import Spine, key_error, read_spine
from tidemill.offline.training_set import TrainingSet
from tidemill.offline.window_events import Events

if TYPE_CHECKING:
    from tidemill.materialize.ledger import Ledger
    from tidemill.settings import Settings

MODES = ("served", "event")


class OfflineStore:
    """Point-in-time retrieval over the sources of one catalog. Holds nothing open between calls."""

    def __init__(
        self, *, root: Path, catalog: Catalog, ledger: Ledger | None = None, settings: Settings | None = None
    ) -> None:
        self.root = root
        self.catalog = catalog
        self._ledger = ledger
        self._settings = settings

    def training_set(
        self,
        features: str | Sequence[str],
        spine: Any,
        *,
        mode: str = "served",
        time_column: str | None = None,
        full_feature_names: bool = False,
        filter_known: bool = True,
    ) -> TrainingSet:
        """The features of a service, or of references `view:feature`, for each row of a spine.

        Args:
            features: a service's name, or references.
            spine: rows with join keys, request columns and a request time: a Polars or pandas frame, an Arrow table,
                the path of a Parquet file, or SQL over the project's sources.
            mode: `served` gives what the online store held at each row's time, `event` what the sources held.
            time_column: the request time's column; found by itself where the spine has one, or `event_timestamp`.
            full_feature_names: name columns `{view}__{feature}`.
            filter_known: look only at rows known by the cut-off; without it known times only break ties.

        Raises SpineError, NotDefinedError, DefinitionError or SourceError before any value is read where possible.
        """
        if mode not in MODES:
            raise InputError(f"{mode!r} is not a mode.", hint="Ask for mode='served' or mode='event'.")
        selection = select(self.catalog, features, full_names=full_feature_names)
        read = read_spine(spine, root=self.root, tables=self._tables, time_column=time_column)
        self._check_before(selection, read)

        def compute(part: Spine, room: int | None) -> pl.DataFrame:
            return self._compute(selection, part, mode, filter_known, room)

        def describe() -> dict[str, Any]:
            from tidemill.offline.datasets import describe_inputs

            return describe_inputs(self, selection)

        return TrainingSet(
            spine=read, selection=selection, mode=mode, compute=compute, describe=describe, settings=self._settings
        )

    def values_at(
        self,
        view: str,
        keys: pl.DataFrame,
        at: Instants,
        cutoff: Instants,
        features: Sequence[str] | None = None,
        *,
        known: Instants | None = None,
    ) -> pl.DataFrame:
        """Features of one view for each row of keys: rows with event and known time up to `cutoff`, ttl from `at`.

        `at` and `cutoff` are int64 microseconds; `keys` has the view's join keys. Columns: the features, and
        `__event_time` (null where nothing was found). With `known`, windows still end at `cutoff`, while events known
        later than `known` are left out; a plain view then takes the earlier of the two as its cut-off. Whole numbers
        over windows that their type cannot hold are null, as they are online.
        """
        found = self.catalog.view(view)
        wanted = found.features if features is None else tuple(found.feature(name) for name in features)
        asked = keys.select(found.join_keys) if found.join_keys else keys.select()
        rows = len(at)
        at, cutoff = np.asarray(at), np.asarray(cutoff)
        if found.is_windowed:
            return self._windows(found, asked, cutoff, "us", wanted, filter_known=True, known=known, refuse=False)
        cutoff = cutoff if known is None else np.minimum(cutoff, known)
        values = self._values(found, asked, rows, at, cutoff, "us", wanted, filter_known=True)
        return self._as_kept_online(values, found, wanted)

    def values_of(self, view: View, keys: pl.DataFrame, at: Instants, cutoff: Instants) -> pl.DataFrame:
        """`values_at` for a view that need not be the catalog's own, such as one as it was applied earlier."""
        return self._values(view, keys, len(at), at, cutoff, "us", view.features, filter_known=True)

    def usual_run(self, view: str) -> int:
        """Microseconds between cut-off and finish of a view's recorded runs, by their median; 0 without any."""
        if self._ledger is None:
            return 0
        finished, cutoff = self._ledger.cutoffs(view)
        return max(0, int(np.median(finished - cutoff))) if len(finished) else 0

    def cutoffs(self, view: str, at: Instants) -> Instants:
        """What the online store had seen of a view at each instant (int64 microseconds); NEVER before its first run."""
        return served_cutoffs(self.catalog.view(view), np.asarray(at, np.int64), self._ledger)

    def latest(
        self, view: str, *, start: datetime | None = None, end: datetime, known_after: datetime | None = None
    ) -> pl.DataFrame:
        """The newest row of each key among events in `(start, end]` known by `end`, and late ones.

        Late rows have an older event, but became known after `known_after`. Columns: join keys, features,
        `__event_time`, `__known_time`. Rows with a null key are left out; see `latest_rows` for how many.
        """
        return self.latest_rows(view, start=start, end=end, known_after=known_after).frame

    def latest_rows(
        self,
        view: str,
        *,
        start: datetime | None = None,
        end: datetime,
        known_after: datetime | None = None,
        share: tuple[int, int] | None = None,
    ) -> Latest:
        """`latest`, with the number of rows looked at and of rows that had a null key.

        With `share` (i, n) only the i-th of n disjoint parts of the view's keys, so that a part fits in memory.
        """
        found = self.catalog.view(view)
        if found.is_windowed:
            return self._latest_windows(found, start, end, share)
        history = self._history(found)
        unit = history.times.unit
        interval = interval_of(
            None if start is None else to_unit(start, unit),
            to_unit(end, unit),
            None if known_after is None else to_unit(known_after, unit),
        )
        return newest_rows(history, found, self.catalog, interval, share=share)

    def scan(self, source: str) -> pl.LazyFrame:
        """A whole source, lazily: names after field mapping, times as UTC microseconds, rows in their order.

        Raises SourceError where the source is missing, corrupt or still empty.
        """
        return self._scan(source)

    def append(self, source: str, frame: Any, *, name: str | None = None) -> Path:
        """Add rows to a source as a new file, which appears at once and complete. See `append.append_rows`."""
        keys = next((view.join_keys for view in self.catalog.views if view.source == source), ())
        return append_rows(self.catalog.source(source), self.root, as_frame(frame), name=name, keys=keys)

    def find_appended(self, source: str, name: str) -> Path | None:
        """The file that was added to a source under `name`, or None."""
        return find_appended(self.catalog.source(source), self.root, name)

    def source_files(self, source: str) -> SourceFiles:
        """The files of a source with their footers read."""
        return SourceFiles.open(self.catalog.source(source), self.root)

    def _scan(self, source: str) -> pl.LazyFrame:
        return scan_source(self.source_files(source), declared_types(self.catalog, source))

    def _tables(self) -> pl.SQLContext:
        context = pl.SQLContext()
        for source in self.catalog.sources:
            if self._has_data(source.name):
                context.register(source.name, self.scan(source.name))
        return context

    def _has_data(self, source: str) -> bool:
        from tidemill.errors import SourceError

        try:
            return bool(self.source_files(source).files)
        except SourceError:
            return False

    def _history(self, view: View) -> History:
        return History.open(self.catalog.source(view.source), self.root)

    def _check_before(self, selection: Selection, spine: Spine) -> None:
        """What can be seen to fail before the work: columns of the spine, and of the sources."""
        from tidemill.offline.checks import check_request, check_sources, check_spine

        check_spine(self.catalog, selection, spine)
        check_request(selection, spine)
        check_sources(self, selection)

    def _compute(
        self, selection: Selection, spine: Spine, mode: str, filter_known: bool, room: int | None
    ) -> pl.DataFrame:
        found: dict[tuple[str, str], pl.Series] = {}
        for item in selection.views:
            values = self._view_values(item, spine, mode, filter_known, room)
            found |= {(item.alias, feature.name): values[feature.name] for feature in item.features}
        found |= self._on_demand_values(selection, spine, found)
        columns = [found[output.key].alias(output.name) for output in selection.outputs]
        return pl.DataFrame(columns) if columns else pl.DataFrame(height=len(spine))

    def _view_values(
        self, item: ViewSelection, spine: Spine, mode: str, filter_known: bool, room: int | None
    ) -> pl.DataFrame:
        keys = spine.keys(dict(item.keys), view=item.view.name)
        cutoff = spine.instants
        if mode == "served" and item.view.schedule is not None:
            micros = rescale(spine.instants, spine.unit, "us")
            cutoff = rescale(served_cutoffs(item.view, micros, self._ledger), "us", spine.unit)
        values = self._values(
            item.view,
            keys,
            len(spine),
            spine.instants,
            cutoff,
            spine.unit,
            item.features,
            filter_known,
            room=room,
            with_times=False,
        )
        return self._as_kept_online(values, item.view, item.features) if mode == "served" else values

    def _as_kept_online(self, values: pl.DataFrame, view: View, features: Sequence[Feature]) -> pl.DataFrame:
        """Values as serving has them: whole seconds of times in lists, and in Feast's format of all times of a row;
        windows keep all of them."""
        if self._settings is None or view.is_windowed or not view.online:
            return values
        packed = self._settings.online_layout == "packed"
        times = [feature for feature in features if feature.dtype.element is ValueType.UNIX_TIMESTAMP]
        return values.with_columns(_whole_seconds(time) for time in times if time.dtype.is_list or not packed)

    def _values(
        self,
        view: View,
        keys: pl.DataFrame,
        rows: int,
        at: Instants,
        cutoff: Instants,
        unit: Unit,
        features: Sequence[Feature],
        filter_known: bool,
        *,
        room: int | None = None,
        with_times: bool = True,
    ) -> pl.DataFrame:
        if view.is_windowed:
            return self._windows(view, keys, cutoff, unit, features, filter_known, room=room)
        history = self._history(view)
        exact = finer([unit, history.times.unit])
        asked_at = rescale(at, unit, exact)
        asked = Asked.at(
            asked_at,
            asked_at if cutoff is at else rescale(cutoff, unit, exact),
            ttl=int(rescale(np.array([_micros(view)]), "us", exact)[0]),
            filter_known=filter_known,
        )
        types = self.catalog.key_types(view)
        try:
            winners = history.find(keys, view.join_keys, types, asked=asked, unit=exact)
        except KeyTypeError as error:
            raise key_error(error, view=view.name, keys=view.join_keys, types=types) from None
        check_winners(winners, rows, has_known=history.times.known is not None)
        columns = {feature.name: feature.dtype for feature in features}
        frame = history.gather(winners.position, columns, order=winners.order, rows=rows)
        check_types(frame, features)
        return frame.with_columns(_event_times(winners, rows, exact)) if with_times else frame

    def _windows(
        self,
        view: View,
        keys: pl.DataFrame,
        upto: Instants,
        unit: Unit,
        features: Sequence[Feature],
        filter_known: bool,
        *,
        known: Instants | None = None,
        room: int | None = None,
        refuse: bool = True,
    ) -> pl.DataFrame:
        from tidemill.offline.window_answers import answer_windows

        events = self._events(view)
        names = [feature.name for feature in features]
        try:
            return answer_windows(
                events,
                keys,
                upto,
                unit,
                features=names,
                filter_known=filter_known,
                known=known,
                room=room,
                refuse=refuse,
            )
        except KeyTypeError as error:
            raise key_error(error, view=view.name, keys=view.join_keys, types=events.key_types) from None

    def events_of_run(self, view: str, *, start: datetime | None, end: datetime) -> int:
        """About how many events a run of a windowed view up to `end`, after one up to `start`, has to look at."""
        from tidemill.offline.windows import span_of_run

        found = self.catalog.view(view)
        events = self._events(found)
        return events.rows_between(span_of_run(found, start, end, events.unit), events.unit)

    def _latest_windows(
        self, view: View, start: datetime | None, end: datetime, share: tuple[int, int] | None
    ) -> Latest:
        from tidemill.offline.windows import latest_windows, span_of_run

        events = self._events(view)
        scanned = events.scan(events.unit, span_of_run(view, start, end, events.unit))
        if share is not None and view.join_keys:
            scanned = scanned.filter(pl.struct(view.join_keys).hash(seed=0) % share[1] == share[0])
        with events.naming_damage():
            frame = latest_windows(view, scanned, start=start, end=end, unit=events.unit, **events.times)
        return Latest(frame=frame, rows_read=frame.height, null_keys=0)

    def _events(self, view: View) -> Events:
        return Events(view=view, files=self.source_files(view.source), types=declared_types(self.catalog, view.source))

    def _on_demand_values(
        self, selection: Selection, spine: Spine, found: dict[tuple[str, str], pl.Series]
    ) -> dict[tuple[str, str], pl.Series]:
        results: dict[tuple[str, str], pl.Series] = {}
        for item in selection.on_demand:
            inputs = {
                (needed.view, needed.feature): found[needed.view, needed.feature].to_list()
                for needed in item.view.inputs
            }
            request = {field.name: spine.frame[field.name].to_list() for field in item.view.request}
            types = input_types(self.catalog, item.view)
            values = evaluate(item.view, self.root, gather_inputs(item.view, inputs, request), types)
            for feature in item.features:
                column = declared_series(feature.name, values[feature.name], feature.dtype)
                results[item.view.name, feature.name] = column
        return results


def _whole_seconds(time: Feature) -> pl.Expr:
    column = pl.col(time.name)
    return column.list.eval(pl.element().dt.truncate("1s")) if time.dtype.is_list else column.dt.truncate("1s")


def _micros(view: View) -> int:
    ttl = view.ttl
    return (ttl.days * 86_400 + ttl.seconds) * 1_000_000 + ttl.microseconds


def _event_times(winners: Winners, rows: int, unit: Unit) -> pl.Series:
    instants = winners.by_row(np.where(winners.position >= 0, winners.event, NEVER), rows, without=NEVER)
    return as_datetimes(instants, name=EVENT_TIME, unit=unit)
