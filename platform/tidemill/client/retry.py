"""How often and how patiently a request is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tidemill.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Up to so many `attempts`, the first included; `Retry(attempts=1)` asks once.

    The pause before attempt n is drawn from [0, min(longest, first * 2**n)) seconds, and is at least what the server
    asked for with Retry-After, but never more than `longest`. Raises InputError for less than one attempt.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 5.0
    draw: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"{self.attempts} attempts were asked for; at least one is needed.")

    def pause(self, attempt: int, retry_after: str | None) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 0, has failed."""
        asked = float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
        return min(self.longest, max(asked, self.draw() * min(self.longest, self.first * 2**attempt)))
