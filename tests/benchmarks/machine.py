"""What a benchmark ran on, and how much memory it held."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("tidemill", "polars", "pyarrow", "numpy", "duckdb")


def describe(libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """The machine and the versions of Python and of the libraries that were compared, for the report."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
    }


def in_words(machine: dict[str, Any]) -> str:
    """One line for people: what `describe` found."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['cores']} cores, {machine['memory_gb']} GB, Python {machine['python']}, {versions}"


def peak_gb() -> float:
    """The most this process has held. (`ru_maxrss` would count what its parent held when it was started.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1e6
