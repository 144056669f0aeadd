"""One segment of the prediction log: a file of JSON lines that one process appends to during one hour.

A line is handed to the operating system in one `write` before anybody is told the answer, so a killed process loses
nothing that was answered. A machine that loses power may lose the last moments unless the log was opened with
`sync`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".jsonl"
PARQUET_SUFFIX = ".parquet"
_HOUR_LENGTH = len("20130101T00")


@dataclass(frozen=True, kw_only=True)
class TornLine:
    """A line that ends in the middle: its process was killed while writing it, and its answer was never sent."""

    file: Path
    bytes: int


class Segment:
    """An open file that lines are appended to. Not thread-safe; the log holds a lock around it."""

    def __init__(self, file: Path, hour: str) -> None:
        self.file, self.hour = file, hour
        self.size = 0
        file.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)

    def write(self, lines: bytes) -> None:
        """Hand whole lines to the operating system. Raises OSError; the segment must not be written to after that."""
        rest = memoryview(lines)
        while rest:
            written = os.write(self._descriptor, rest)
            if written == 0:
                raise OSError(errno.EIO, "nothing was written", str(self.file))
            rest = rest[written:]
        self.size += len(lines)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def later_sync(self) -> Callable[[], None]:
        """A `sync` of what is written now, to be called once, that works even if the segment is closed meanwhile."""
        descriptor = os.dup(self._descriptor)

        def sync() -> None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        return sync

    def close(self) -> None:
        os.close(self._descriptor)


def hour_of_name(file: Path) -> str:
    """The hour, as `20130101T05`, that a segment's records belong to."""
    return file.name[:_HOUR_LENGTH]


def whole_lines(file: Path) -> tuple[bytes, TornLine | None]:
    """A segment's content up to its last complete line, and what was left over."""
    content = file.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return content, None
    return content[:end], TornLine(file=file, bytes=len(content) - end)
