"""Which features are asked for, resolved by the catalog: of which view, by which spine columns, under what name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tidemill.definitions.catalog import Catalog, Feature, OnDemandView, Projection, View
from tidemill.definitions.column_names import refuse_equal_names
from tidemill.errors import DefinitionError, NotDefinedError


@dataclass(frozen=True, kw_only=True)
class ViewSelection:
    """Features of one view under one alias. `keys` maps each of the view's join keys to a spine column."""

    view: View
    alias: str
    keys: tuple[tuple[str, str], ...]
    features: tuple[Feature, ...]


@dataclass(frozen=True, kw_only=True)
class OnDemandSelection:
    view: OnDemandView
    features: tuple[Feature, ...]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output column: `source` is the alias of a view or an on-demand view, `key` where its values are found."""

    name: str
    source: str
    feature: Feature
    on_demand: bool
    view: str

    @property
    def key(self) -> tuple[str, str]:
        """The alias of a view, which may be asked twice by different keys; the name of an on-demand view."""
        return (self.view if self.on_demand else self.source), self.feature.name


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a retrieval reads and answers. `views` also hold what only on-demand views need as input."""

    views: tuple[ViewSelection, ...]
    on_demand: tuple[OnDemandSelection, ...]
    outputs: tuple[Output, ...]
    asked: tuple[str, ...]


def select(catalog: Catalog, features: str | Sequence[str], *, full_names: bool = False) -> Selection:
    """Resolve a service's name, or references such as `weather:wind_speed`.

    Raises NotDefinedError for names the catalog does not hold, DefinitionError where two features would share a column.
    """
    if isinstance(features, str) and ":" not in features:
        projections: Iterable[Projection] = catalog.service(features).projections
        asked: tuple[str, ...] = (features,)
    else:
        asked = (features,) if isinstance(features, str) else tuple(features)
        projections = [_projection(reference) for reference in asked]
    outputs: list[Output] = []
    views: dict[str, ViewSelection] = {}
    on_demand: dict[str, OnDemandSelection] = {}
    for projection in projections:
        if catalog.is_on_demand(projection.view):
            _add_on_demand(catalog, projection, on_demand, outputs)
        else:
            _add_view(catalog, projection, views, outputs)
    _add_inputs(catalog, on_demand.values(), views)
    named = tuple(replace(item, name=f"{item.source}__{item.feature.name}") if full_names else item for item in outputs)
    refuse_equal_names((item.name, f"{item.source}:{item.feature.name}") for item in named)
    return Selection(views=tuple(views.values()), on_demand=tuple(on_demand.values()), outputs=named, asked=asked)


def _projection(reference: str) -> Projection:
    view, colon, feature = reference.partition(":")
    if not colon or not view or not feature:
        raise DefinitionError(f"{reference!r} names no feature.", hint="Write it as `view:feature`.")
    return Projection(view=view, features=(feature,))


def _add_view(catalog: Catalog, projection: Projection, views: dict[str, ViewSelection], outputs: list[Output]) -> None:
    view = _view(catalog, projection.view)
    features = tuple(view.feature(name) for name in projection.features)
    _merge(views, projection, view, features)
    outputs.extend(
        Output(name=item.name, source=projection.name, feature=item, on_demand=False, view=view.name)
        for item in features
    )


def _merge(views: dict[str, ViewSelection], projection: Projection, view: View, features: tuple[Feature, ...]) -> None:
    renamed = dict(projection.join_key_map)
    unknown = set(renamed) - set(view.join_keys)
    if unknown:
        raise DefinitionError(
            f"The join key map of view {view.name!r} names {', '.join(sorted(unknown))}.",
            hint=f"Its join keys are: {', '.join(view.join_keys) or 'none'}.",
        )
    keys = tuple((key, renamed.get(key, key)) for key in view.join_keys)
    fresh = ViewSelection(view=view, alias=projection.name, keys=keys, features=features)
    had = views.get(projection.name)
    if had is None:
        views[projection.name] = fresh
        return
    if had.view != view or had.keys != keys:
        raise DefinitionError(
            f"{projection.name!r} stands for two different things in one retrieval.",
            hint="Give each projection an alias of its own (`view.with_name(...)`).",
        )
    more = tuple(item for item in features if item not in had.features)
    views[projection.name] = replace(had, features=had.features + more)


def _add_on_demand(
    catalog: Catalog, projection: Projection, on_demand: dict[str, OnDemandSelection], outputs: list[Output]
) -> None:
    view = catalog.on_demand_view(projection.view)
    features = tuple(view.feature(name) for name in projection.features)
    had = on_demand.get(view.name)
    on_demand[view.name] = OnDemandSelection(view=view, features=features if had is None else had.features + features)
    outputs.extend(
        Output(name=item.name, source=projection.name, feature=item, on_demand=True, view=view.name)
        for item in features
    )


def _add_inputs(catalog: Catalog, on_demand: Iterable[OnDemandSelection], views: dict[str, ViewSelection]) -> None:
    for selection in on_demand:
        for needed in selection.view.inputs:
            view = _view(catalog, needed.view)
            keys = views[view.name].keys if view.name in views else tuple((key, key) for key in view.join_keys)
            projection = Projection(view=view.name, features=(needed.feature,), join_key_map=keys)
            _merge(views, projection, view, (view.feature(needed.feature),))


def _view(catalog: Catalog, name: str) -> View:
    try:
        return catalog.view(name)
    except NotDefinedError:
        known = [item.name for item in (*catalog.views, *catalog.on_demand_views)]
        raise NotDefinedError("feature view", name, known) from None
