"""Giving way: a load finds out whether others read from the same Redis, and takes turns with Redis while they do.

At full speed a load prepares the next rows while Redis works on the last ones. Where both share a machine of few
processors with a reader, that leaves none for the reader. In turns only one of the two is at work at any time: a little
is sent, its answer awaited, and what comes next is prepared while Redis is idle. That costs a load about half of its
speed, so it is done only while somebody reads.

Redis counts how often each command was called; it is asked on the load's own connection, so that what had been sent
before is what the load has done by then. Commands inside a script count like any other: a load knows how often its own
scripts read, and the rest was done by others.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

INTERVAL = 0.05
"""Seconds between two looks at who reads."""
QUESTION = b"*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n"

_READERS = 50.0  # reads a second; what watches a Redis asks less often, and not for values
_QUIET_LOOKS = 2  # without readers before a load goes on at full speed
_CALLS = re.compile(rb"^cmdstat_(?:get|mget|getrange|hget|hmget|hgetall):calls=(\d+)", re.MULTILINE)
_SMALLEST_TURN, _LARGEST_TURN = 1_500, 64_000  # bytes sent in one: a script, or as many as at full speed
_TURN_WAITS = 0.001  # seconds of a turn that are nobody's work
_TURN_SPEED = 35e6  # bytes a second that Redis and a load manage in turns, when nothing keeps them waiting

ReadsOf = Callable[[Any], int]
"""How many reading commands the script behind a reply has called."""


def nothing_read(_: Any) -> int:
    """For commands that only write."""
    return 0


class Courtesy:
    """Whether loads give way at the moment; what one of them has found out holds for the next.

    Until anything is known they do: a small load is over before that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.gives_way, self.is_told = True, True
        self._quiet_looks = _QUIET_LOOKS - 1

    def note(self, reads: float) -> None:
        """So many reads a second are done by others."""
        self._quiet_looks = 0 if reads >= _READERS else self._quiet_looks + 1
        self.gives_way = self._quiet_looks < (_QUIET_LOOKS if self.gives_way else 1)

    def give_up(self) -> None:
        """Redis does not tell. Whether somebody reads is unknown, and a load must not be slow for nobody."""
        self.gives_way = self.is_told = False

    def watch(self, connection: socket.socket, reads_of: ReadsOf) -> Watch | None:
        """For one load. None where Redis has a machine of its own: there turns would leave nobody a free processor, and
        be as slow as the network."""
        return Watch(self, reads_of) if _is_here(connection) else None


@dataclass(frozen=True, kw_only=True)
class _Look:
    """At that time so many reads had been done by all, and so many of them by the load itself."""

    at: float
    reads: int
    own: int


class Watch:
    """What one load sees of the others, and how much it sends in a turn."""

    def __init__(self, courtesy: Courtesy, reads_of: ReadsOf) -> None:
        self._courtesy, self._reads_of = courtesy, reads_of
        self._own, self._asked = 0, float("-inf")
        self._last: _Look | None = None
        self._turn = _SMALLEST_TURN

    @property
    def gives_way(self) -> bool:
        return self._courtesy.gives_way

    @property
    def turn(self) -> int:
        """Bytes to send at once while the load gives way."""
        return self._turn

    def now(self) -> float:
        return self._courtesy.clock()

    def asks(self) -> bool:
        """Whether it is time for another `QUESTION`, which is then taken to be sent."""
        now = self.now()
        if not self._courtesy.is_told or now - self._asked < INTERVAL:
            return False
        self._asked = now
        return True

    def count(self, replies: Iterable[Any]) -> None:
        """The load's own commands have been answered."""
        if self._reads_of is not nothing_read:  # a million replies are not asked in vain
            self._own += sum(map(self._reads_of, replies))

    def hear(self, answer: Any) -> None:
        """What Redis said to the question; everything that was answered before has been counted."""
        if not isinstance(answer, bytes):
            self._courtesy.give_up()
            return
        look = _Look(at=self._asked, reads=sum(map(int, _CALLS.findall(answer))), own=self._own)
        if self._last is not None:
            self._courtesy.note(_reads_of_others(self._last, look))
        self._last = look

    def took(self, sent: int, seconds: float) -> None:
        """A turn took so long. Where processors are so busy that most of it was waiting, the next one is larger, so
        that giving way has a limit."""
        waited = seconds > _TURN_WAITS + sent / _TURN_SPEED
        self._turn = min(2 * self._turn, _LARGEST_TURN) if waited else max(self._turn // 2, _SMALLEST_TURN)


def _reads_of_others(before: _Look, now: _Look) -> float:
    """A second; negative where Redis began to count anew."""
    return (now.reads - before.reads - (now.own - before.own)) / (now.at - before.at)


def _is_here(connection: socket.socket) -> bool:
    if connection.family == socket.AF_UNIX:
        return True
    try:
        return connection.getpeername()[0] == connection.getsockname()[0]
    except OSError:  # it has just been closed; whoever sends is told
        return False
