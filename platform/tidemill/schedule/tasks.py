"""What is scheduled in a project: extractions first, then materializations, then retraining."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from tidemill.definitions.catalog import Catalog, Model, Schedule, Trigger

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
    models = tuple(_retrainings(catalog)) if retrain else ()
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


def _retrainings(catalog: Catalog) -> Iterator[Task]:
    for model in catalog.models:
        schedules = [_schedule_of(trigger) for trigger in model.retrain if trigger.kind == "schedule"]
        for place, schedule in enumerate(schedules):
            name = f"retrain:{model.name}" if place == 0 else f"retrain:{model.name}:{place + 1}"
            yield Task(kind=Kind.RETRAIN, name=name, subject=model.name, schedule=schedule)
        if len(schedules) < len(model.retrain):
            yield _check_of(model)


def _check_of(model: Model) -> Task:
    return Task(kind=Kind.RETRAIN, name=f"retrain:{model.name}:check", subject=model.name, schedule=CHECK_MODELS)


def _schedule_of(trigger: Trigger) -> Schedule:
    settings = dict(trigger.settings)
    return Schedule(cron=str(settings["cron"]), timezone=str(settings.get("timezone", "UTC")))
