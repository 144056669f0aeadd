"""Who goes first where a run and those who read features share processors: those who read."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.errors import TidemillError

if TYPE_CHECKING:
    from tidemill.project import Project

_NICE = 10
_SLICE = 100_000  # nanoseconds, the shortest that Linux knows; it gives about 3 ms by itself
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""The numbers of Linux's `sched_setattr`, which C libraries have had since glibc 2.41 only."""
_KEEP_POLICY = 0x08


def give_way(project: Project) -> None:
    """Lower the priority of this process, for good: for processes that load, and answer nobody meanwhile.

    A reader that wakes up then need not wait until a run's thread has used up its turn on a processor, which takes
    milliseconds. An embedded Redis is started first, because it would inherit the priority.
    """
    with suppress(TidemillError):  # whoever needs it is told then
        _ = project.online
    for thread in _threads():
        with suppress(OSError):  # it has ended, or the system does not allow it
            nice = max(_NICE, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, nice)
            _take_short_turns(thread, nice)


def _threads() -> list[int]:
    """Linux keeps a priority for each thread; other systems have one for the process, which is 0 here."""
    if not hasattr(os, "setpriority"):
        return []
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]


def _take_short_turns(thread: int, nice: int) -> None:
    """Have Linux take the processor away after a short turn: since 6.6 whoever wakes up may have to wait for its end,
    however low the priority of the one that runs. Before 6.12 Linux keeps its own length, and nothing happens."""
    number = _SET_ATTRIBUTES.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None:
        return
    # struct sched_attr: size, policy, flags, nice, priority, runtime (the slice), deadline, period
    attributes = struct.pack("=IIQiIQQQ", 48, 0, _KEEP_POLICY, nice, 0, _SLICE, 0, 0)
    ctypes.CDLL(None).syscall(number, thread, ctypes.create_string_buffer(attributes), 0)
