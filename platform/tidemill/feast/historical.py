"""What Feast asks of history, put to Tidemill's engine: its views as a small catalog, its request as a training set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.field import Field
from feast.infra.offline_stores.file_source import FileSource
from feast.labeling.label_view import LabelView
from feast.value_type import ValueType as FeastValueType

from tidemill.clock import as_utc
from tidemill.definitions import catalog as nouns
from tidemill.definitions.catalog import Catalog
from tidemill.definitions.types import ValueType
from tidemill.errors import InputError, NotDefinedError, SpineError
from tidemill.feast.nouns import aggregation_noun, feature_noun, source_noun, stored_feature, stream_noun
from tidemill.feast.pulls import columns_of
from tidemill.feast.tags import event_id_of, freshness_of, schedule_of
from tidemill.offline.instants import Unit, finer, to_unit
from tidemill.offline.scan import declared_types, scan_source
from tidemill.offline.spine import CONVENTIONAL_TIME
from tidemill.offline.store import OfflineStore
from tidemill.offline.training_set import TrainingSet

if TYPE_CHECKING:
    from feast.infra.registry.base_registry import BaseRegistry

_SERVICE = "asked"
_UUIDS = (FeastValueType.UUID.value, FeastValueType.TIME_UUID.value)
_A_MOMENT = timedelta(seconds=60)


def registered_view(view: FeatureView, only: Collection[str] | None = None, *, of_history: bool = False) -> nouns.View:
    """A view as Feast's registry keeps it. Its keys stand for its entities, which the registry keeps elsewhere.

    `only` names the features that matter; others may be of types that Tidemill does not keep. A windowed view is kept
    whole: which tiles it has depends on all of its aggregations. Read only `of_history`, any type will do.

    A stream view is windowed where its features are what its aggregations produce; else, as Feast reads it, plain.
    """
    keys = tuple(column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID)
    if view.batch_source is None:
        raise InputError(f"Feature view {view.name!r} has no source.", hint="Only views over files have a history.")
    aggregations = _aggregations(view)
    if aggregations:
        only = None
    noun_of = stored_feature if of_history else feature_noun
    return nouns.View(
        name=view.name,
        entities=keys,
        join_keys=keys,
        features=tuple(noun_of(field) for field in features_of(view) if only is None or field.name in only),
        source=view.batch_source.name,
        stream=None if view.stream_source is None else view.stream_source.name,
        ttl=view.ttl or timedelta(0),
        schedule=schedule_of(view.tags, f"feature view {view.name!r}"),
        freshness=freshness_of(view.tags, f"feature view {view.name!r}"),
        aggregations=aggregations,
        event_id=event_id_of(view),
    )


def features_of(view: FeatureView) -> list[Field]:
    """A view's features; the registry gives back a stream view's keys among them."""
    keys = {column.name for column in view.entity_columns}
    return [field for field in view.features if field.name not in keys]


def catalog_of_views(
    project: str,
    views: Iterable[FeatureView],
    sources: Iterable[FileSource] = (),
    only: Mapping[str, Collection[str]] | None = None,
    root: Path | None = None,
) -> Catalog:
    """A catalog of just these views, `only` some features of each, and of further sources for SQL to read.

    With `root`, the repository's folder, the catalog is one to read history by: features may be of any type, and the
    keys of label views are of the types that their files hold.
    """
    views = list(views)
    entities: dict[str, nouns.Entity] = {}
    for view in views:
        for field in _keys_of(view, root):
            entities.setdefault(field.name, nouns.Entity(name=field.name, join_key=field.name, dtype=field.dtype))
    of_views = [view.batch_source for view in views if view.batch_source is not None]
    found_sources = {source.name: source_noun(source) for source in (*sources, *of_views)}
    streams = {
        view.stream_source.name: stream_noun(view.stream_source) for view in views if view.stream_source is not None
    }
    chosen = only or {}
    found_views = {
        view.name: registered_view(view, chosen.get(view.name), of_history=root is not None) for view in views
    }
    return Catalog(
        project=project,
        entities=tuple(entities.values()),
        sources=tuple(found_sources.values()),
        streams=tuple(streams.values()),
        views=tuple(found_views.values()),
    )


def training_set_of(
    *,
    root: Path,
    project: str,
    views: Sequence[FeatureView],
    references: Sequence[str],
    spine: Any,
    registry: BaseRegistry,
    full_feature_names: bool,
    filter_known: bool,
) -> TrainingSet:
    """The features that `references` name (those of on-demand views aside), in event mode.

    Each view comes with its projection: alias, join key map and selected features.
    """
    is_query = isinstance(spine, str)
    further = _file_sources(registry, project) if is_query else []
    projections = tuple(_projections(views, references))
    only: dict[str, set[str]] = {view.name: set() for view in views}
    for projection in projections:
        only[projection.view] |= set(projection.features)
    catalog = catalog_of_views(project, views, further, only, root)
    service = nouns.Service(name=_SERVICE, projections=projections)
    store = OfflineStore(root=root, catalog=replace(catalog, services=(service,)))
    return store.training_set(
        _SERVICE, spine, mode="event", full_feature_names=full_feature_names, filter_known=filter_known
    )


def keys_and_times(
    *, root: Path, project: str, views: Sequence[FeatureView], start: datetime, end: datetime
) -> pl.DataFrame:
    """A spine out of the views themselves: one row for each distinct key and event time in `[start, end]`.

    Views with different keys each bring their own rows; the keys they lack are null there. In the order of time and
    keys, so that the same files always give the same spine. Times are as fine as the finest source's.
    """
    catalog = catalog_of_views(project, views, only={view.name: () for view in views}, root=root)
    store = OfflineStore(root=root, catalog=catalog)
    unit = finer(store.source_files(source.name).unit_of(source.timestamp_field) for source in catalog.sources)
    parts: dict[tuple[str, tuple[str, ...]], pl.LazyFrame] = {}
    for view in views:
        found, renamed = catalog.view(view.name), view.projection.join_key_map
        columns = tuple(renamed.get(key, key) for key in found.join_keys)
        parts[found.source, columns] = _keys_in(store, found, columns, (to_unit(start, unit), to_unit(end, unit)), unit)
    if not parts:
        raise InputError("Nothing but on-demand features was asked for over a range of time.", hint="Give a spine.")
    spine = pl.concat(parts.values(), how="diagonal_relaxed").unique().collect()
    keys = sorted(column for column in spine.columns if column != CONVENTIONAL_TIME)
    return spine.select(*keys, CONVENTIONAL_TIME).sort(CONVENTIONAL_TIME, *keys)


def range_asked(
    views: Sequence[FeatureView], start: datetime | None, end: datetime | None
) -> tuple[datetime, datetime]:
    """The range Feast means: without a start, back by the longest ttl, or 30 days.

    Feast fills in a missing end with the local time, without a zone; any other time without a zone is UTC.
    """
    until = _end_asked(end)
    if start is not None:
        since = as_utc(start)
    else:
        since = until - max([view.ttl for view in views if view.ttl], default=timedelta(days=30))
    if since > until:
        raise SpineError(f"The range ends ({until}) before it starts ({since}).")
    return since, until


def _end_asked(end: datetime | None) -> datetime:
    now = datetime.now(UTC)  # an entry point: Feast asks for `now` by leaving the end out
    if end is None:
        return now
    is_local_now = end.tzinfo is None and abs(end.astimezone(UTC) - now) < _A_MOMENT
    return now if is_local_now else as_utc(end)


def _keys_of(view: FeatureView, root: Path | None) -> list[nouns.Feature]:
    """A view's keys with their types. Those of label views are the file's: Feast infers only those of other views.

    UUIDs lie in files as text, and as such history is joined by them.
    """
    if root is None:
        return [feature_noun(column) for column in view.entity_columns]
    texts = [column for column in view.entity_columns if column.dtype.to_value_type().value in _UUIDS]
    keys = [
        nouns.Feature(name=column.name, dtype=ValueType.STRING) if column in texts else feature_noun(column)
        for column in view.entity_columns
    ]
    if not isinstance(view, LabelView) or not isinstance(view.batch_source, FileSource):
        return keys
    stored, type_of = dict(columns_of(root, view.batch_source)), view.batch_source.source_datatype_to_feast_value_type()
    return [
        replace(key, dtype=ValueType(type_of(stored[key.name]).value)) if key.name in stored else key for key in keys
    ]


def _keys_in(
    store: OfflineStore, view: nouns.View, columns: Sequence[str], between: tuple[int, int], unit: Unit
) -> pl.LazyFrame:
    event = pl.col(store.catalog.source(view.source).timestamp_field)
    wanted = [pl.col(key).alias(column) for key, column in zip(view.join_keys, columns, strict=True)]
    types = declared_types(store.catalog, view.source)
    rows = scan_source(store.source_files(view.source), types, unit=unit, between=between)
    inside = event.to_physical().is_between(pl.lit(between[0]), pl.lit(between[1]))
    rows = rows.filter(inside, *(pl.col(key).is_not_null() for key in view.join_keys))
    return rows.select(*wanted, event.alias(CONVENTIONAL_TIME)).unique()


def _projections(views: Sequence[FeatureView], references: Sequence[str]) -> Iterable[nouns.Projection]:
    by_alias = {view.projection.name_to_use(): view for view in views}
    for reference in references:
        alias, _, feature = reference.partition(":")
        view = by_alias.get(alias)
        if view is None:
            continue
        if feature not in {field.name for field in view.features}:
            raise NotDefinedError("feature", feature, [field.name for field in view.features])
        yield nouns.Projection(
            view=view.name,
            features=(feature,),
            alias=alias,
            join_key_map=tuple(sorted(view.projection.join_key_map.items())),
        )


def _aggregations(view: FeatureView) -> tuple[nouns.Aggregation, ...]:
    """Those whose results are features of the view; Feast may hand over a view with some of its features only."""
    names = {field.name for field in features_of(view)}
    declared = [item for item in getattr(view, "aggregations", ()) if item.time_window is not None]
    wanted = [item for item in declared if item.resolved_name(item.time_window) in names]
    if len(wanted) < len(names):
        return ()
    return tuple(aggregation_noun(item, f"feature view {view.name!r}") for item in wanted)


def _file_sources(registry: BaseRegistry, project: str) -> list[FileSource]:
    found = registry.list_data_sources(project, allow_cache=True)
    return [source for source in found if isinstance(source, FileSource) and source.timestamp_field]
