"""Which features of a declared model could know the future: its own spine and labels, looked at by `offline.leaks`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tidemill.offline.leaks import Leak, find_leaks
from tidemill_training.spine import build_spine

if TYPE_CHECKING:
    from tidemill.project import Project


def find_model_leaks(project: Project, model: str, *, at: datetime | None = None, sample: int = 50_000) -> list[Leak]:
    """The leaks of a model's features on its own spine, strongest first; none is good news.

    Raises NotDefinedError for an unknown model, TrainingDataError where no outcome is known yet.
    """
    definition = project.catalog.model(model)
    now = at or project.clock.now()
    spine = build_spine(project, definition, None, now)
    return find_leaks(
        project.offline,
        definition.service,
        spine,
        at=now,
        label=definition.label.column,
        request=definition.spine.request,
        time_column=definition.spine.time_column,
        sample=sample,
        seed=definition.seed,
    )
