"""Importing scikit-learn without what it takes along when it happens to be installed.

scikit-learn and skops import pandas, Dask and others merely because they can be imported. A serving process has no
use for them, and they would cost seconds and tens of megabytes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

UNWANTED = ("pandas", "dask", "torch", "cupy", "jax")


class _Refusal:
    """A finder that says of some packages that they are not installed, to one thread only."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages, self._thread = frozenset(packages), threading.get_ident()

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> None:
        if threading.get_ident() == self._thread and name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"{name} is not wanted in a serving process", name=name)


@contextmanager
def without(packages: Sequence[str] = UNWANTED) -> Iterator[None]:
    """Let `packages` look as if they were not installed, to this thread, while the block runs."""
    refusal = _Refusal(packages)
    sys.meta_path.insert(0, refusal)  # type: ignore[arg-type] - a finder needs no more than find_spec
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)  # type: ignore[arg-type]
