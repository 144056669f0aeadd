"""A repository of Feast definitions becomes a catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from feast.data_source import KafkaSource, KinesisSource, PushSource, RequestSource
from feast.feature_view import DUMMY_ENTITY_NAME, FeatureView
from feast.repo_contents import RepoContents

from tidemill.definitions import catalog as nouns
from tidemill.definitions.catalog import Catalog
from tidemill.errors import DefinitionError
from tidemill.feast.models import check_model, model_noun
from tidemill.feast.nouns import entity_noun, on_demand_noun, service_noun, source_noun, stream_noun, view_noun
from tidemill.feast.repository import Repository, opened_repository

T = TypeVar("T")


def compile_repository(root: Path) -> Catalog:
    """Read and check the definitions in a folder. Registers nothing and touches no store.

    Raises ConfigurationError or DefinitionError, naming the object that is wrong and what to change.
    """
    with opened_repository(root) as repository:
        return catalog_of(repository)


def catalog_of(repository: Repository) -> Catalog:
    """The catalog of an opened repository; equal definitions give an equal digest."""
    contents = repository.contents
    _check_label_views(contents)
    views: list[FeatureView] = _distinct([*contents.feature_views, *contents.stream_feature_views], "feature view")
    entities = _entities(contents, views)
    catalog = Catalog(
        project=repository.config.project,
        entities=tuple(entities.values()),
        sources=_sorted(source_noun(source) for source in _batch_sources(contents, views)),
        streams=_sorted(stream_noun(source) for source in _streams(contents)),
        views=_sorted(view_noun(view, entities) for view in views),
        on_demand_views=_sorted(
            on_demand_noun(view, repository.root)
            for view in _distinct(contents.on_demand_feature_views, "on-demand feature view")
        ),
        services=_sorted(service_noun(service) for service in _distinct(contents.feature_services, "feature service")),
        models=tuple(model_noun(model, repository.root) for model in repository.models),
        entity_key_version=repository.config.entity_key_serialization_version,
    )
    _check(catalog)
    return catalog


def _check_label_views(contents: RepoContents) -> None:
    """Feast keeps its label views and reads them; a vector that is served cannot hold what people say afterwards."""
    names = {view.name for view in contents.label_views}
    for service in contents.feature_services:
        for projection in service.feature_view_projections:
            if projection.name in names:
                raise DefinitionError(
                    f"Service {service.name!r} reads label view {projection.name!r}, which Tidemill does not serve.",
                    hint="Leave it out, and declare the label of a model with tidemill.Label over a FileSource.",
                )


def _entities(contents: RepoContents, views: Iterable[FeatureView]) -> dict[str, nouns.Entity]:
    columns: dict[str, list[Any]] = {}
    for view in views:
        for name in view.entities:
            columns.setdefault(name, []).extend(view.entity_columns)
    own = [entity for entity in contents.entities if entity.name != DUMMY_ENTITY_NAME]
    found = [entity_noun(entity, columns.get(entity.name, ())) for entity in _distinct(own, "entity")]
    return {entity.name: entity for entity in sorted(found, key=lambda entity: entity.name)}


def _batch_sources(contents: RepoContents, views: Iterable[FeatureView]) -> list[Any]:
    streaming = (PushSource, KafkaSource, KinesisSource, RequestSource)
    behind = [source.batch_source for source in _streams(contents) if source.batch_source is not None]
    of_views = [view.batch_source for view in views if view.batch_source is not None]
    named = [source for source in contents.data_sources if not isinstance(source, streaming)]
    return _distinct([*named, *behind, *of_views], "source")


def _streams(contents: RepoContents) -> list[Any]:
    streams = [
        source for source in contents.data_sources if isinstance(source, PushSource | KafkaSource | KinesisSource)
    ]
    return _distinct(streams, "stream source")


def _distinct(items: Iterable[T], kind: str) -> list[T]:
    """Each object once. Raises DefinitionError where two different ones of a kind share a name."""
    found: dict[str, Any] = {}
    for item in items:
        name = str(getattr(item, "name", ""))
        earlier = found.setdefault(name, item)
        if earlier is not item and earlier != item:
            raise DefinitionError(f"Two objects of kind {kind} are named {name!r}.", hint="Give each its own name.")
    return list(found.values())


def _sorted(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(items, key=lambda item: item.name))


def _check(catalog: Catalog) -> None:
    _check_view_names(catalog)
    for view in catalog.views:
        _check_view(catalog, view)
    for view in catalog.on_demand_views:
        for source in view.inputs:
            catalog.view(source.view).feature(source.feature)
    for service in catalog.services:
        _check_service(catalog, service)
    for model in catalog.models:
        check_model(catalog, model)
    _check_hashes(catalog)


def _check_view_names(catalog: Catalog) -> None:
    names = [view.name for view in (*catalog.views, *catalog.on_demand_views)]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"Two views are named {name!r}.", hint="Give each its own name.")


def _check_view(catalog: Catalog, view: nouns.View) -> None:
    catalog.source(view.source)
    if view.stream is not None and catalog.stream(view.stream).source != view.source:
        raise DefinitionError(f"View {view.name!r} has the stream {view.stream!r}, but another source than it.")
    for feature in view.features:
        if feature.name in view.join_keys:
            raise DefinitionError(
                f"View {view.name!r} has a feature named like its key {feature.name!r}.", hint="Rename the feature."
            )


def _check_service(catalog: Catalog, service: nouns.Service) -> None:
    for projection in service.projections:
        known: nouns.View | nouns.OnDemandView = (
            catalog.on_demand_view(projection.view)
            if catalog.is_on_demand(projection.view)
            else catalog.view(projection.view)
        )
        for name in projection.features:
            known.feature(name)
        if isinstance(known, nouns.View):
            _check_key_map(service, projection, known)
    _check_projection_names(service)


def _check_key_map(service: nouns.Service, projection: nouns.Projection, view: nouns.View) -> None:
    for key, _ in projection.join_key_map:
        if key not in view.join_keys:
            raise DefinitionError(
                f"Service {service.name!r} maps the key {key!r} of view {view.name!r}, which has no such key.",
                hint=f"Its keys: {', '.join(view.join_keys) or 'none'}.",
            )


def _check_projection_names(service: nouns.Service) -> None:
    names: Sequence[str] = [projection.name for projection in service.projections]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                f"Service {service.name!r} reads view {name!r} twice.",
                hint="Tell the two apart with view.with_name('...').",
            )


def _check_hashes(catalog: Catalog) -> None:
    from tidemill.online.keys import check_field_hashes

    check_field_hashes(catalog)
