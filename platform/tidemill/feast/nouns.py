"""Feast's objects as the catalog's nouns. Pure functions: nothing is read, nothing is registered.

The plug-ins use them on objects that come from Feast's registry, `tidemill apply` on those of the repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from feast import Entity as FeastEntity
from feast import FeatureService, FeatureView, OnDemandFeatureView
from feast.aggregation import Aggregation as FeastAggregation
from feast.batch_feature_view import BatchFeatureView
from feast.data_source import DataSource, KafkaSource, PushSource
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.field import Field as FeastField
from feast.infra.offline_stores.file_source import FileSource

from tidemill.definitions import catalog as nouns
from tidemill.definitions.code import reference_to
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import check_windowed, hop_for
from tidemill.errors import DefinitionError, NotDefinedError
from tidemill.feast.tags import event_id_of, freshness_of, own_tags, schedule_of


def entity_noun(entity: FeastEntity, columns: Iterable[FeastField] = ()) -> nouns.Entity:
    """An entity; where it declares no type, the type of its column among `columns` (those of a view) is taken."""
    number = entity.value_type.value
    if not number:
        found = {field.dtype.to_value_type().value for field in columns if field.name == entity.join_key}
        if len(found) != 1:
            problem = "no type" if not found else "different types in different views"
            raise DefinitionError(
                f"Entity {entity.name!r} has {problem}.", hint="Declare it: Entity(..., value_type=ValueType.INT64)."
            )
        (number,) = found
    return nouns.Entity(
        name=entity.name,
        join_key=entity.join_key,
        dtype=_value_type(number, f"entity {entity.name!r}"),
        description=entity.description,
    )


def source_noun(source: DataSource) -> nouns.Source:
    """A batch source. Raises DefinitionError for a kind of source that is not a file."""
    if not isinstance(source, FileSource):
        raise DefinitionError(
            f"Source {source.name!r} is a {type(source).__name__}, which Tidemill does not read.",
            hint="Use a FileSource over Parquet or Delta; `@extracts` brings other data there.",
        )
    if not source.timestamp_field:
        raise DefinitionError(
            f"Source {source.name!r} does not say when its facts happened.",
            hint="Add timestamp_field='...' to it.",
        )
    mapping = source.field_mapping
    known = source.created_timestamp_column
    return nouns.Source(
        name=source.name,
        path=source.path.removeprefix("file://"),
        timestamp_field=mapping.get(source.timestamp_field, source.timestamp_field),
        known_field=mapping.get(known, known) or None,
        file_format=file_format_of(source),
        field_mapping=tuple(sorted(mapping.items())),
        schedule=schedule_of(source.tags, f"source {source.name!r}"),
        description=source.description,
    )


def stream_noun(source: DataSource) -> nouns.Stream:
    """A push source or a Kafka topic, in front of a batch source."""
    kinds = {PushSource: "push", KafkaSource: "kafka"}
    kind = next((kind for of, kind in kinds.items() if isinstance(source, of)), None)
    if kind is None:
        raise DefinitionError(
            f"Source {source.name!r} is a {type(source).__name__}, from which Tidemill does not read events.",
            hint="Use a PushSource or a KafkaSource.",
        )
    behind = source.batch_source  # pyright: ignore[reportAttributeAccessIssue] - both kinds have one
    if behind is None:
        raise DefinitionError(
            f"Source {source.name!r} has no batch_source, so that nothing could be trained on what it brings.",
            hint="Give it the FileSource where its events are kept.",
        )
    return nouns.Stream(name=source.name, kind=kind, source=behind.name, address=_topic_address(source))


def _topic_address(source: DataSource) -> str:
    """Where a Kafka source's events are; empty for a push source, and where the definitions do not say."""
    options = getattr(source, "kafka_options", None)
    if options is None or not (options.kafka_bootstrap_servers and options.topic):
        return ""
    return f"kafka://{options.kafka_bootstrap_servers}/{options.topic}"


def view_noun(view: FeatureView, entities: Mapping[str, nouns.Entity]) -> nouns.View:
    """A feature view, plain or windowed, whose features and types Feast has already inferred where they were left out.

    `entities` are the project's, by name. Raises DefinitionError for what Tidemill could not keep equal offline and
    online: transformations, aggregations without a window, derived views, views without a source.
    """
    place = f"feature view {view.name!r}"
    _refuse_transformations(view)
    if view.batch_source is None:
        raise DefinitionError(f"The {place} has no source.", hint="Give it a FileSource, or a PushSource before one.")
    keys = [_entity(name, entities, place) for name in view.entities if name != DUMMY_ENTITY_NAME]
    aggregations = tuple(aggregation_noun(item, place) for item in getattr(view, "aggregations", ()))
    found = nouns.View(
        name=view.name,
        entities=tuple(entity.name for entity in keys),
        join_keys=tuple(entity.join_key for entity in keys),
        features=tuple(feature_noun(field) for field in view.features),
        source=view.batch_source.name,
        stream=None if view.stream_source is None else view.stream_source.name,
        ttl=view.ttl or timedelta(0),
        online=view.online,
        schedule=schedule_of(view.tags, place),
        freshness=freshness_of(view.tags, place),
        aggregations=aggregations,
        event_id=event_id_of(view),
        description=view.description,
        owner=view.owner,
        tags=own_tags(view.tags),
    )
    _check_features(found)
    return found


def on_demand_noun(view: OnDemandFeatureView, root: Path) -> nouns.OnDemandView:
    """An on-demand view; its function is named and must be importable from the project's folder."""
    place = f"on-demand feature view {view.name!r}"
    transformation = view.feature_transformation
    function = getattr(transformation, "udf", None)
    if view.mode not in ("python", "pandas") or function is None or view.aggregations:
        raise DefinitionError(
            f"The {place} has mode {view.mode!r}{' and aggregations' if view.aggregations else ''}, "
            "which Tidemill does not evaluate.",
            hint="Write it as a function with mode='python' or mode='pandas'.",
        )
    if view.singleton:
        raise DefinitionError(
            f"The {place} is a singleton, which is called once for every row.",
            hint="Let the function take and return lists (singleton=False): it is then called once for a whole batch.",
        )
    inputs = [
        nouns.OnDemandInput(view=projection.name, feature=field.name)
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    ]
    request = [feature_noun(field) for source in view.source_request_sources.values() for field in source.schema]
    return nouns.OnDemandView(
        name=view.name,
        features=tuple(feature_noun(field) for field in view.features),
        function=reference_to(function, root),
        mode=str(view.mode),
        inputs=tuple(inputs),
        request=tuple(request),
        description=view.description,
    )


def service_noun(service: FeatureService) -> nouns.Service:
    return nouns.Service(
        name=service.name,
        projections=tuple(
            nouns.Projection(
                view=projection.name,
                features=tuple(field.name for field in projection.features),
                alias=projection.name_alias or None,
                join_key_map=tuple(sorted(projection.join_key_map.items())),
            )
            for projection in service.feature_view_projections
        ),
        description=service.description,
    )


def feature_noun(field: FeastField) -> nouns.Feature:
    number = field.dtype.to_value_type().value
    return nouns.Feature(
        name=field.name, dtype=_value_type(number, f"field {field.name!r}"), description=field.description
    )


def stored_feature(field: FeastField) -> nouns.Feature:
    """A feature that is only read from history: one of a type that Tidemill does not keep comes as its file holds it.

    Such types (UUIDs, nested lists, instants with their own zones ...) have no column type of their own, as maps have
    none; so a map stands for them.
    """
    number = field.dtype.to_value_type().value
    dtype = ValueType(number) if number in list(ValueType) else ValueType.MAP
    return nouns.Feature(name=field.name, dtype=dtype, description=field.description)


def _value_type(number: int, place: str) -> ValueType:
    try:
        return ValueType(number)
    except ValueError:
        from feast.value_type import ValueType as FeastValueType

        raise DefinitionError(
            f"The {place} has the type {FeastValueType(number).name}, which Tidemill does not keep.",
            hint=f"Known: {', '.join(item.name for item in ValueType)}.",
        ) from None


def file_format_of(source: FileSource) -> str:
    """`parquet` or `delta`; raises DefinitionError for anything else."""
    name = type(source.file_format).__name__.removesuffix("Format").lower() if source.file_format else "parquet"
    if name not in ("parquet", "delta"):
        raise DefinitionError(
            f"Source {source.name!r} has the format {name!r}, which Tidemill does not read.",
            hint="Use Parquet or Delta.",
        )
    return name


def _entity(name: str, entities: Mapping[str, nouns.Entity], place: str) -> nouns.Entity:
    if name not in entities:
        missing = NotDefinedError("entity", name, entities)
        raise DefinitionError(f"The {place} is about {name!r}. {missing.message}", hint=missing.hint)
    return entities[name]


def aggregation_noun(item: FeastAggregation, place: str) -> nouns.Aggregation:
    """An aggregation over a window; `place` is told in errors."""
    if item.time_window is None:
        raise DefinitionError(
            f"An aggregation of {item.column!r} in the {place} has no time_window.",
            hint="Give it one, e.g. time_window=timedelta(hours=1).",
        )
    try:
        function = nouns.AggregationFunction(item.function)
    except ValueError:
        unknown = NotDefinedError(
            "window function", item.function, [known.value for known in nouns.AggregationFunction]
        )
        raise DefinitionError(f"In the {place}: {unknown}") from None
    return nouns.Aggregation(
        name=item.resolved_name(item.time_window),
        function=function,
        column=item.column,
        window=item.time_window,
        hop=hop_for(item.time_window, item.slide_interval),
    )


def _refuse_transformations(view: FeatureView) -> None:
    place = f"feature view {view.name!r}"
    if getattr(view, "source_views", None):
        raise DefinitionError(
            f"The {place} is derived from other views.",
            hint="Compute it in `extract.py` and read the result as a file.",
        )
    if getattr(view, "udf", None) is not None or getattr(view, "feature_transformation", None) is not None:
        raise DefinitionError(
            f"The {place} transforms its rows with a function (mode {_mode(view)}), which Tidemill does not run.",
            hint="Transform in `extract.py`, or at the moment of asking with an on-demand feature view.",
        )
    if isinstance(view, BatchFeatureView) and getattr(view, "aggregations", None):
        raise DefinitionError(
            f"The {place} has aggregations, which Feast's registry forgets for a BatchFeatureView.",
            hint="Use a StreamFeatureView over a PushSource; it needs no stream to be backfilled.",
        )


def _mode(view: FeatureView) -> str:
    return repr(getattr(view.mode, "value", view.mode))


def _check_features(view: nouns.View) -> None:
    if not view.features:
        raise DefinitionError(f"Feature view {view.name!r} has no features.", hint="Add a schema to it.")
    if not view.is_windowed:
        return
    declared, produced = [item.name for item in view.features], [item.name for item in view.aggregations]
    for name in declared:
        if name not in produced:
            unknown = NotDefinedError("aggregation", name, produced)
            raise DefinitionError(
                f"Windowed view {view.name!r} declares the field {name!r}, which no aggregation produces.",
                hint=unknown.hint,
            )
    missing = [name for name in produced if name not in declared]
    if missing:
        raise DefinitionError(
            f"Windowed view {view.name!r} does not declare what its aggregations produce: {', '.join(missing)}.",
            hint=f"Add to its schema e.g. Field(name={missing[0]!r}, dtype=Float64).",
        )
    check_windowed(view)
