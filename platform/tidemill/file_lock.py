"""A file that one process at a time holds locked; the system lets go of it when that process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from tidemill.errors import UnavailableError

_LOOK_AGAIN = 0.01  # seconds


@contextmanager
def held_alone(file: Path, *, doing: str, patience: float) -> Iterator[None]:
    """Hold the lock while the block runs; the file is made, with its folders, where it is missing.

    Args:
        doing: what is done under the lock, as in "Another process is ...".
        patience: seconds to wait for whoever holds it.

    Raises UnavailableError where it is held for longer: its holder may stand still, and would never let go.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        if not _locked_within(opened, patience):
            raise UnavailableError(
                f"Another process is {doing}, and has not ended within {patience:g} s.",
                hint=f"See what keeps it; `fuser {file}` says which it is.",
            )
        yield


def _locked_within(opened: IO[str], patience: float) -> bool:
    """`flock` has no patience of its own: it asks once, or waits for ever."""
    end = monotonic() + patience
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= end:
                return False
            sleep(_LOOK_AGAIN)
        else:
            return True
