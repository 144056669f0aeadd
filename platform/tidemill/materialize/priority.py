"""Who goes first where a run and those who read features share processors: those who read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.errors import TidemillError

if TYPE_CHECKING:
    from tidemill.project import Project

_NICE = 10


def give_way(project: Project) -> None:
    """Lower the priority of this process, for good: for processes that load, and answer nobody meanwhile.

    A reader that wakes up then need not wait until a run's thread has used up its turn, which takes milliseconds. An
    embedded Redis is started first, because it would inherit the priority.
    """
    with suppress(TidemillError):  # whoever needs it is told then
        _ = project.online
    for thread in _threads():
        with suppress(OSError):  # it has ended, or the system does not allow it
            os.setpriority(os.PRIO_PROCESS, thread, max(_NICE, os.getpriority(os.PRIO_PROCESS, thread)))


def _threads() -> list[int]:
    """Linux keeps a priority for each thread; other systems have one for the process, which is 0 here."""
    if not hasattr(os, "setpriority"):
        return []
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]
