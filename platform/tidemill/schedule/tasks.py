"""What is scheduled in a project: extractions first, then materializations, then retraining."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from tidemill.definitions.catalog import Catalog, Model, Projection, Schedule, Trigger

CHECK_MODELS = Schedule(every=timedelta(days=1))
"""How often a model is looked at for triggers other than its schedule."""


class Kind(StrEnum):
    EXTRACT = "extract"
    MATERIALIZE = "materialize"
    RETRAIN = "retrain"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to do at the ticks of a schedule. `subject` is a source, a view or a model.

    `name` is unique, and what the ledger calls it: a view's name, `extract:{source}` or `retrain:{model}`. `after` are
    the tasks whose work up to the same tick comes first.
    """

    kind: Kind
    name: str
    subject: str
    schedule: Schedule
    after: tuple[str, ...] = ()


def tasks_of(catalog: Catalog, *, extracted: Collection[str], retrain: bool) -> tuple[Task, ...]:
    """The catalog's scheduled work in the order in which it is done at one instant.

    `extracted` are the sources that the project extracts itself; without `retrain` models are left out.
    """
    sources = tuple(_extractions(catalog, extracted))
    views = tuple(_materializations(catalog, {task.subject for task in sources}))
    models = tuple(_retrainings(catalog, {task.name for task in (*sources, *views)})) if retrain else ()
    return (*sources, *views, *models)


def _extractions(catalog: Catalog, extracted: Collection[str]) -> Iterator[Task]:
    for source in catalog.sources:
        if source.schedule is not None and source.name in extracted:
            yield Task(kind=Kind.EXTRACT, name=f"extract:{source.name}", subject=source.name, schedule=source.schedule)


def _materializations(catalog: Catalog, extracted: Collection[str]) -> Iterator[Task]:
    for view in catalog.views:
        if view.schedule is not None and view.online:
            after = (f"extract:{view.source}",) if view.source in extracted else ()
            yield Task(kind=Kind.MATERIALIZE, name=view.name, subject=view.name, schedule=view.schedule, after=after)


def _retrainings(catalog: Catalog, scheduled: Collection[str]) -> Iterator[Task]:
    for model in catalog.models:
        after = tuple(name for name in _needs(catalog, model) if name in scheduled)
        schedules = [_schedule_of(trigger) for trigger in model.retrain if trigger.kind == "schedule"]
        for place, schedule in enumerate(schedules):
            name = f"retrain:{model.name}" if place == 0 else f"retrain:{model.name}:{place + 1}"
            yield Task(kind=Kind.RETRAIN, name=name, subject=model.name, schedule=schedule, after=after)
        if len(schedules) < len(model.retrain):
            name = f"retrain:{model.name}:check"
            yield Task(kind=Kind.RETRAIN, name=name, subject=model.name, schedule=CHECK_MODELS, after=after)


def _needs(catalog: Catalog, model: Model) -> dict[str, None]:
    """The tasks that bring what a model learns from: its spine, its labels, and the views that it reads."""
    sources = (model.spine.source, model.label.source)
    views = dict.fromkeys(
        view for item in catalog.service(model.service).projections for view in _behind(catalog, item)
    )
    return dict.fromkeys((*(f"extract:{source}" for source in sources), *views))


def _behind(catalog: Catalog, item: Projection) -> tuple[str, ...]:
    if not catalog.is_on_demand(item.view):
        return (item.view,)
    return tuple(needed.view for needed in catalog.on_demand_view(item.view).inputs)


def _schedule_of(trigger: Trigger) -> Schedule:
    settings = dict(trigger.settings)
    return Schedule(cron=str(settings["cron"]), timezone=str(settings.get("timezone", "UTC")))
