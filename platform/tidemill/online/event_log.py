"""What a log of events is: messages are delivered to a group of consumers until one of them has dealt with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from tidemill.json_depth import DEEPEST, is_too_deep


@dataclass(frozen=True, kw_only=True)
class Message:
    """One delivered event: its name in the log, its row and its body as it came.

    `row` is None where the body cannot be read, and `problem` says why.
    """

    name: str
    row: dict[str, Any] | None
    body: bytes
    problem: str = ""


class EventLog(Protocol):
    """Where events are taken from. One for each consuming process; every method may raise UnavailableError."""

    def poll(self, *, limit: int, wait: float) -> Sequence[Message]:
        """Up to `limit` messages that nobody has dealt with; waits up to `wait` seconds for the first."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """These messages, and all that were polled before them, have been dealt with for good."""
        ...

    def set_aside(self, message: Message, reason: str) -> None:
        """Keep a message that cannot be pushed where people find it, before it is acknowledged."""
        ...

    def rewind(self) -> None:
        """Deliver again what was polled and has not been acknowledged."""
        ...

    def lag(self) -> int | None:
        """How many messages are still to be dealt with, as far as this consumer can see; None while it sees none."""
        ...

    def close(self) -> None:
        """Leave the group; what is not acknowledged is delivered to others."""
        ...


def message_of(name: str, body: bytes | None) -> Message:
    """A message whose body is a JSON object, or which says why it is none."""
    body = body or b""
    try:
        row = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problem = f"its body is not JSON: {error}" if body else "it has no body"
        return Message(name=name, row=None, body=body, problem=problem)
    if not isinstance(row, dict):
        return Message(name=name, row=None, body=body, problem="its body is JSON, but no object")
    if is_too_deep(body, row):
        return Message(name=name, row=None, body=body, problem=f"its body is nested deeper than {DEEPEST} levels")
    return Message(name=name, row=row, body=body)
