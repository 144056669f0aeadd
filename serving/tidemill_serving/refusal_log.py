"""What a server logs of requests that it refuses for reasons of its own."""

from __future__ import annotations

import logging

_LINES = 10  # a second: a store that is away refuses thousands, and each in the same words


class RefusalLog:
    """A line for each refusal, but only some in any second; the next one says how many had none.

    The metrics count all of them.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since, self._lines, self._left_out = float("-inf"), 0, 0

    def note(self, path: str, error: Exception, *, at: float) -> None:
        """`at` is in seconds, of any clock that never goes back."""
        if at >= self._since + 1.0:
            self._since, self._lines = at, 0
        self._lines += 1
        if self._lines > _LINES:
            self._left_out += 1
            return
        before = f" ({self._left_out:,} refusals before it were not logged)" if self._left_out else ""
        self._left_out = 0
        self._log.warning("Answering %s: %s%s", path, error, before, extra={"action": "refused"})
