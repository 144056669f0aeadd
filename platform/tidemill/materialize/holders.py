"""Who holds a claim: a process by a name that no other process has had, so that its death can be told for certain."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil


def this_worker() -> str:
    """A name for this process that no other process has had."""
    return _identity(os.getpid())


def is_dead(worker: str) -> bool:
    """True only for a process of this machine that is certainly gone."""
    parts = worker.rsplit(":", 2)
    if len(parts) != 3 or parts[0] != _machine():
        return False
    try:
        process = psutil.Process(int(parts[1]))
        return _started(process.pid) != parts[2] or process.status() == psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True
    except (ValueError, OSError, psutil.AccessDenied):
        return False


@lru_cache(maxsize=1)
def _identity(pid: int) -> str:
    """Host and its start, process namespace, process and its start: enough to tell later whether it lives."""
    return f"{_machine()}:{pid}:{_started(pid)}"


def _started(pid: int) -> str:
    """When a process began, in ticks since the machine did: told in wall time it would change when the clock is set."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        return f"{psutil.Process(pid).create_time():.2f}"
    after_name = stat.read_text().rpartition(")")[2].split()
    return after_name[19]


@lru_cache(maxsize=1)
def _boot() -> str:
    """One start of one machine: machines made from one image share a name, and their processes may share numbers."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    return ""  # where the system has no name for it that stays when the clock is set


def _machine() -> str:
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a namespace is not a path
    except OSError:
        namespace = 0
    return f"{socket.gethostname()}/{_boot()}/{namespace}"
