"""Models as declared beside the features, as the catalog's nouns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidemill.definitions import catalog as nouns
from tidemill.definitions import declare
from tidemill.definitions.catalog import Catalog
from tidemill.definitions.code import reference_to
from tidemill.definitions.duration import parse_duration
from tidemill.errors import DefinitionError
from tidemill.schedule.ticks import check_schedule

_GATES = {"AtLeast": "at_least", "AtMost": "at_most"}


def model_noun(model: declare.Model, root: Path) -> nouns.Model:
    """A declared model; its estimator is named and must be importable from the project's folder."""
    spine = model.spine
    keys = spine.keys.items() if isinstance(spine.keys, Mapping) else [(key, key) for key in spine.keys]
    return nouns.Model(
        name=model.name,
        service=_name(model.features),
        spine=nouns.SpineDefinition(
            source=_name(spine.source),
            time_column=spine.time,
            id_column=spine.id,
            keys=tuple(keys),
            request=tuple(spine.request),
        ),
        label=nouns.LabelDefinition(
            source=_name(model.label.source), column=model.label.column, id_column=model.label.id
        ),
        estimator=reference_to(model.estimator, root),
        split=nouns.Split(test=parse_duration(model.split.test), validation=parse_duration(model.split.validation)),
        metrics=tuple(model.metrics),
        gates=tuple(_gate(gate) for gate in model.gates),
        retrain=tuple(_trigger(trigger) for trigger in model.retrain),
        seed=model.seed,
        description=model.description,
    )


def check_model(catalog: Catalog, model: nouns.Model) -> None:
    """Raise NotDefinedError or DefinitionError where a model asks for what the catalog does not hold or cannot give."""
    service = catalog.service(model.service)
    catalog.source(model.spine.source)
    catalog.source(model.label.source)
    _check_distinct_names(model, service)
    _check_label(model)
    _check_keys(catalog, model, service)
    _check_request(catalog, model, service)


def _check_distinct_names(model: nouns.Model, service: nouns.Service) -> None:
    names = [name for projection in service.projections for name in projection.features]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                f"Model {model.name!r} reads two features named {name!r} through service {service.name!r}.",
                hint="Rename one, so that the model's vector has one column for each.",
            )


def _check_label(model: nouns.Model) -> None:
    spine = model.spine
    taken = {spine.id_column, spine.time_column, *(key for key, _ in spine.keys), *spine.request}
    if model.label.column in taken:
        raise DefinitionError(
            f"The label of model {model.name!r} is called {model.label.column!r}, as a column of its spine is.",
            hint="What is predicted is not known at the request: rename one, or take it out of the request.",
        )


def _check_keys(catalog: Catalog, model: nouns.Model, service: nouns.Service) -> None:
    given = {key for key, _ in model.spine.keys}
    for projection in service.projections:
        for key in _keys_read(catalog, projection):
            if key not in given:
                raise DefinitionError(
                    f"Model {model.name!r} reads view {projection.view!r} by {key!r}, but its spine gives only "
                    f"{', '.join(sorted(given)) or 'no keys'}.",
                    hint=f"Add {key!r} to the spine's keys.",
                )


def _keys_read(catalog: Catalog, projection: nouns.Projection) -> set[str]:
    """The spine's columns by which a projection is looked up; those behind on-demand features included."""
    if catalog.is_on_demand(projection.view):
        inputs = catalog.on_demand_view(projection.view).inputs
        return {key for source in inputs for key in catalog.view(source.view).join_keys}
    renamed = dict(projection.join_key_map)
    return {renamed.get(key, key) for key in catalog.view(projection.view).join_keys}


def _check_request(catalog: Catalog, model: nouns.Model, service: nouns.Service) -> None:
    for projection in service.projections:
        if not catalog.is_on_demand(projection.view):
            continue
        for field in catalog.on_demand_view(projection.view).request:
            if field.name not in model.spine.request:
                raise DefinitionError(
                    f"Model {model.name!r} reads on-demand view {projection.view!r}, which needs the request field "
                    f"{field.name!r}.",
                    hint=f"Add {field.name!r} to the spine's request columns.",
                )


def _name(item: Any) -> str:
    return item if isinstance(item, str) else item.name


def _gate(gate: declare.AtLeast | declare.AtMost | declare.NotWorseThanChampion) -> nouns.Gate:
    if isinstance(gate, declare.NotWorseThanChampion):
        return nouns.Gate(kind="not_worse_than_champion", metric=gate.metric, value=float(gate.by))
    return nouns.Gate(kind=_GATES[type(gate).__name__], metric=gate.metric, value=float(gate.value))


def _trigger(trigger: Any) -> nouns.Trigger:
    match trigger:
        case declare.OnSchedule(cron=cron, timezone=timezone):
            check_schedule(nouns.Schedule(cron=cron, timezone=timezone))
            return nouns.Trigger(kind="schedule", settings=(("cron", cron), ("timezone", timezone)))
        case declare.OnDrift(psi=psi):
            return nouns.Trigger(kind="drift", settings=(("psi", float(psi)),))
        case declare.OnPerformance(metric=metric, drop=drop):
            return nouns.Trigger(kind="performance", settings=(("metric", metric), ("drop", float(drop))))
        case declare.OnNewData(rows=rows):
            return nouns.Trigger(kind="new_data", settings=(("rows", float(rows)),))
        case _:
            raise DefinitionError(f"{trigger!r} is no reason to fit again.", hint="Use OnSchedule, OnDrift and so on.")
