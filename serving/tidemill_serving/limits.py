"""What one request may take: bytes, rows, a place in the queue, time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tidemill.settings import Settings
from tidemill_serving.problems import OverloadedError

HEAD_TIMEOUT = 10.0
"""Seconds a connection may stay open without sending a complete request head."""

TAKE_TIMEOUT = 10.0
"""Seconds in which a client must take some of an answer that waits for it."""

HEAD_BYTES = 65_536
"""How long a request's head may be."""

_BODIES_AT_ONCE = 16
"""How many of the largest requests are held at the same time; more of smaller ones."""


class Room:
    """How many bytes the bodies that are still arriving may take together. To be used from one event loop.

    One limit for each body bounds nothing while anybody may send any number of them at once.
    """

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0

    @contextmanager
    def taken(self) -> Iterator[Taken]:
        """What one body takes until the block ends."""
        taken = Taken(self)
        try:
            yield taken
        finally:
            self.used -= taken.size


class Taken:
    """One body's part of the room."""

    def __init__(self, room: Room) -> None:
        self._room, self.size = room, 0

    def add(self, size: int) -> None:
        """Take some more. Raises OverloadedError where there is no more room."""
        room = self._room
        if room.used + size > room.size:
            raise OverloadedError(
                f"The requests that are arriving have {room.size:,} bytes together, which is all this server takes.",
                hint="Try again in a second, ask for fewer rows at a time, or add a replica.",
            )
        room.used += size
        self.size += size


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Read once from the settings. Times are in seconds."""

    body_bytes: int
    rows: int
    pending: int
    pending_rows: int
    request_seconds: float
    room: Room = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            body_bytes=settings.max_body_bytes,
            rows=settings.max_rows,
            pending=settings.max_pending,
            pending_rows=_BODIES_AT_ONCE * settings.max_rows,
            request_seconds=settings.request_timeout,
            room=Room(_BODIES_AT_ONCE * settings.max_body_bytes),
        )
