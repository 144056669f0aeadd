"""Taking events from a log and pushing them: none lost and, by their ids, none counted twice.

A message is acknowledged after it has been pushed. Whoever is killed in between leaves it pending, and it is delivered
again, to the same consumer or to another that claims it; the event id makes the second push change nothing. An event
without an id of its own gets its message's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from tidemill.clock import Clock
from tidemill.errors import InputError, UnavailableError
from tidemill.online.push import PushResult
from tidemill.online.resp import RedisReplyError, RespClient

Push = Callable[[list[dict[str, Any]], datetime], PushResult]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One delivered event: its name in the log, and its row; `row` is None where the body cannot be read."""

    name: str
    row: dict[str, Any] | None
    problem: str = ""


class EventLog(Protocol):
    """Where events are taken from. One for each consuming process."""

    def poll(self, *, limit: int, wait: float) -> Sequence[Message]:
        """Up to `limit` messages that nobody has dealt with; waits up to `wait` seconds for the first."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """These messages have been dealt with for good."""
        ...

    def set_aside(self, message: Message, reason: str) -> None:
        """Keep a message that cannot be pushed where people find it; it is not delivered again."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Consumed:
    """What became of some messages."""

    accepted: int = 0
    duplicates: int = 0
    set_aside: int = 0

    def __add__(self, other: Consumed) -> Consumed:
        return Consumed(
            accepted=self.accepted + other.accepted,
            duplicates=self.duplicates + other.duplicates,
            set_aside=self.set_aside + other.set_aside,
        )


def consume(
    log: EventLog,
    push: Push,
    *,
    clock: Clock,
    event_id: str | None = None,
    limit: int = 500,
    wait: float = 1.0,
    stop: Callable[[], bool] = lambda: False,
) -> Consumed:
    """Push what the log delivers until `stop()` says so, which is asked after every poll.

    Args:
        push: writes rows as of an instant, e.g. `lambda rows, at: project.push("departed", rows, to="both", at=at)`.
        event_id: the column that names an event; where a row lacks it, the message's name stands in.

    Raises UnavailableError when the online store or the log is gone; nothing is acknowledged then that was not pushed.
    """
    total = Consumed()
    while True:
        messages = log.poll(limit=limit, wait=wait)
        if messages:
            total += _deal_with(log, push, messages, event_id, clock.now())
        if stop():
            return total


def _deal_with(log: EventLog, push: Push, messages: Sequence[Message], event_id: str | None, at: datetime) -> Consumed:
    unreadable = [message for message in messages if message.row is None]
    for message in unreadable:
        log.set_aside(message, message.problem)
    readable = [message for message in messages if message.row is not None]
    done = _push_some(log, push, readable, event_id, at) if readable else Consumed()
    log.acknowledge(messages)
    return done + Consumed(set_aside=len(unreadable))


def _push_some(log: EventLog, push: Push, messages: Sequence[Message], event_id: str | None, at: datetime) -> Consumed:
    """Push together; where the rows do not fit as a whole, halve until the ones that do not are alone."""
    try:
        result = push([_named(message, event_id) for message in messages], at)
    except InputError as error:
        if len(messages) == 1:
            log.set_aside(messages[0], str(error))
            return Consumed(set_aside=1)
        middle = len(messages) // 2
        return _push_some(log, push, messages[:middle], event_id, at) + _push_some(
            log, push, messages[middle:], event_id, at
        )
    for rejected in result.rejected:
        log.set_aside(messages[rejected.row], rejected.reason)
    return Consumed(accepted=result.accepted, duplicates=result.duplicates, set_aside=len(result.rejected))


def _named(message: Message, event_id: str | None) -> dict[str, Any]:
    row = message.row or {}
    if event_id is None or row.get(event_id) is not None:
        return row
    return row | {event_id: message.name}


class RedisStreamLog:
    """A Redis Stream read by a consumer group.

    A message is one field `json` with an object, or one field for each column (read as JSON where that is possible, as
    text otherwise). First come the messages that this consumer took and did not acknowledge before it died, then those
    of consumers that have been silent for `claim_after` seconds, then new ones. What cannot be pushed goes to the
    stream `{stream}:set-aside` with its reason.

    Args:
        client: its timeout must be longer than any `wait`.
        stream: the stream's key; the group is created, with the stream, where it is missing.
        group: consumers of one group share the messages.
        consumer: this consumer's name; a restarted process keeps it to take up where it was.
    """

    def __init__(
        self, client: RespClient, *, stream: str, group: str, consumer: str, claim_after: float = 60.0
    ) -> None:
        self._client, self._stream, self._group, self._consumer = client, stream, group, consumer
        self._claim_after = round(claim_after * 1_000)
        self._own_from: str | None = "0"
        self._create_group()

    def poll(self, *, limit: int, wait: float) -> Sequence[Message]:
        return self._own(limit) or self._abandoned(limit) or self._fresh(limit, wait)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        names = [message.name for message in messages]
        self._client.call("XACK", self._stream, self._group, *names)

    def set_aside(self, message: Message, reason: str) -> None:
        body = b"null" if message.row is None else orjson.dumps(message.row, default=str)
        target = f"{self._stream}:set-aside"
        self._client.call("XADD", target, "*", "message", message.name, "reason", reason, "json", body)

    def close(self) -> None:
        self._client.close()

    def _create_group(self) -> None:
        try:
            self._client.call("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except RedisReplyError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _own(self, limit: int) -> list[Message]:
        """What this consumer was given before and has not acknowledged, until there is no more of it."""
        if self._own_from is None:
            return []
        found = self._read(limit, self._own_from, block=None)
        self._own_from = found[-1].name if found else None
        return found

    def _abandoned(self, limit: int) -> list[Message]:
        answer = self._client.call(
            "XAUTOCLAIM", self._stream, self._group, self._consumer, self._claim_after, "0", "COUNT", limit
        )
        return [_message(*entry) for entry in answer[1] if entry is not None and entry[1] is not None]

    def _fresh(self, limit: int, wait: float) -> list[Message]:
        return self._read(limit, ">", block=max(round(wait * 1_000), 1))

    def _read(self, limit: int, start: str, *, block: int | None) -> list[Message]:
        waiting = () if block is None else ("BLOCK", block)
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", limit, *waiting)
        try:
            answer = self._client.call(*command, "STREAMS", self._stream, start)
        except RedisReplyError as error:
            if str(error).startswith("NOGROUP"):
                raise UnavailableError(
                    f"The consumer group {self._group!r} of stream {self._stream!r} is gone.",
                    hint="Somebody deleted the stream; start the consumer again to make it anew.",
                ) from error
            raise
        if not answer:
            return []
        return [_message(*entry) for entry in answer[0][1] if entry[1] is not None]


def _message(name: bytes, fields: Sequence[bytes]) -> Message:
    pairs = {fields[i].decode(): fields[i + 1] for i in range(0, len(fields), 2)}
    if set(pairs) != {"json"}:
        return Message(name=name.decode(), row={column: _value(text) for column, text in pairs.items()})
    try:
        row = orjson.loads(pairs["json"])
    except orjson.JSONDecodeError as error:
        return Message(name=name.decode(), row=None, problem=f"its body is not JSON: {error}")
    if not isinstance(row, dict):
        return Message(name=name.decode(), row=None, problem="its body is JSON, but no object")
    return Message(name=name.decode(), row=row)


def _value(text: bytes) -> Any:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode(errors="replace")
    return found if isinstance(found, int | float | bool | None) else text.decode(errors="replace")
