"""A write that survives a failover: it is confirmed when enough replicas hold it, and only then acknowledged.

Redis copies to its replicas after it has answered, so that a master that dies takes with it what it acknowledged last.
WAIT, on the connection that wrote, answers when the copies are made. See https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from typing import Any

from tidemill.errors import OnlineStoreUnavailableError


class Confirmation:
    """The command that follows a write, and the check of its reply; nothing at all where no replica is asked for.

    Args:
        wanted: replicas that must hold the write.
        seconds: how long to wait for them.
    """

    def __init__(self, wanted: int, *, seconds: float) -> None:
        self._wanted, self._seconds = wanted, seconds
        words = (b"WAIT", b"%d" % wanted, b"%d" % max(1, round(seconds * 1_000)))
        command = b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.packed, self.replies = (command, 1) if wanted else (b"", 0)

    def checked(self, replies: list[Any]) -> list[Any]:
        """The replies of what was written. Raises OnlineStoreUnavailableError where too few replicas hold it."""
        if not self.replies:
            return replies
        *written, held = replies
        if isinstance(held, int) and held < self._wanted:
            raise OnlineStoreUnavailableError(
                f"The write is on {held} replicas after {self._seconds:g} s; {self._wanted} must hold it before it is "
                "acknowledged, or a failover could lose it.",
                hint="Look at the replicas; or set `redis_replicas` lower, at that risk.",
            )
        return written
