"""The log of a process that `tidemill up` started: its standard output and error, kept from filling the disk."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import sleep

LOG = "TIDEMILL_UP_LOG"
"""The environment variable that names a process its log."""

LARGEST = 20_000_000  # bytes, of which there may be twice as many: the log, and the one before it
_LOOK_AGAIN = 1.0  # seconds
_OUTPUT, _ERRORS = 1, 2


def keep_log_bounded() -> None:
    """From a thread, begin the log anew whenever it has become too large. Nothing happens where no log is named.

    This is done to the files themselves, below Python's logging: what is printed, and what a library in C says, is
    bounded too.
    """
    log = os.environ.pop(LOG, None)
    if log is not None:
        threading.Thread(target=_keep_bounded, args=(Path(log),), name="tidemill-log", daemon=True).start()


def _begin_anew(log: Path) -> None:
    """Keep what has been said as `NAME.log.1`, and go on in an empty file."""
    with suppress(FileNotFoundError):  # somebody removed it
        log.replace(log.with_name(f"{log.name}.1"))
    fresh = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for output in (sys.stdout, sys.stderr):
        output.flush()
    for number in (_OUTPUT, _ERRORS):
        os.dup2(fresh, number)
    os.close(fresh)


def _keep_bounded(log: Path) -> None:
    while True:
        with suppress(OSError):  # a disk without room, or somebody who cleans up: the next look may do better
            if os.fstat(_ERRORS).st_size > LARGEST:
                _begin_anew(log)
        sleep(_LOOK_AGAIN)
