"""Taking events from a log and pushing them: none lost and, by their ids, none counted twice.

A message is acknowledged after it has been pushed. Whoever is killed in between leaves it to be delivered again, to the
same consumer or to another; the event id makes the second push change nothing. An event without an id of its own gets
its message's. A message that cannot be pushed is set aside with its reason, at least once, and stops nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidemill.clock import Clock
from tidemill.errors import ConflictError, InputError, UnavailableError
from tidemill.online.event_log import EventLog, Message
from tidemill.online.push import PushResult

Push = Callable[[list[dict[str, Any]], datetime], PushResult]
Trouble = UnavailableError | ConflictError
_LOG_TIMEOUT = 30.0  # seconds for a Redis to answer, beyond any wait for messages


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
    event_ids: Sequence[str] = (),
    limit: int = 500,
    wait: float = 1.0,
    stop: Callable[[], bool] = lambda: False,
    after: Callable[[Consumed], None] = lambda _: None,
    try_again: Callable[[Trouble], bool] = lambda _: False,
) -> Consumed:
    """Push what the log delivers until `stop()` says so, which is asked after every poll.

    Args:
        push: writes rows as of an instant, e.g. `lambda rows, at: project.push("departed", rows, to="both", at=at)`.
        event_ids: the columns that name an event; where a row lacks one, the message's name stands in.
        after: told what became of each batch, which may be empty.
        try_again: told that a part does not answer or tiles are being rebuilt, waits as long as it likes, and says
            whether to go on; the messages in hand are then delivered again.

    Raises UnavailableError or ConflictError where `try_again` gives up; nothing is acknowledged that was not pushed.
    """
    total = Consumed()
    while True:
        try:
            done = _next_batch(log, push, event_ids, clock, limit, wait)
        except (UnavailableError, ConflictError) as trouble:
            log.rewind()
            if not try_again(trouble):
                raise
        else:
            total += done
            after(done)
        if stop():
            return total


def open_log(address: str, *, group: str, consumer: str, claim_after: float = 60.0) -> EventLog:
    """The log at an address; nothing is asked of it yet.

    Args:
        address: `kafka://host:port/topic`, or that of a Redis with the stream's key: `redis://host:port/0?stream=key`
            (`rediss://` and `unix://` likewise).
        claim_after: seconds of silence after which another consumer's Redis messages are taken over.

    Raises ConfigurationError.
    """
    if address.startswith("kafka:"):
        from tidemill.online.kafka_topic import KafkaLog

        return KafkaLog(address, group=group, consumer=consumer)
    from tidemill.online.redis_stream import RedisStreamLog, read_stream_address
    from tidemill.online.resp import RespClient

    server, stream = read_stream_address(address)
    client = RespClient(server, timeout=_LOG_TIMEOUT)
    return RedisStreamLog(client, stream=stream, group=group, consumer=consumer, claim_after=claim_after)


def _next_batch(log: EventLog, push: Push, event_ids: Sequence[str], clock: Clock, limit: int, wait: float) -> Consumed:
    messages = log.poll(limit=limit, wait=wait)
    readable = [message for message in messages if message.row is not None]
    unreadable = [message for message in messages if message.row is None]
    done = _push_some(log, push, readable, event_ids, clock.now()) if readable else Consumed()
    for message in unreadable:
        log.set_aside(message, message.problem)
    if messages:
        log.acknowledge(messages)
    return done + Consumed(set_aside=len(unreadable))


def _push_some(
    log: EventLog, push: Push, messages: Sequence[Message], event_ids: Sequence[str], at: datetime
) -> Consumed:
    """Push together; where the rows do not fit as a whole, halve until the ones that do not are alone."""
    try:
        result = push([_named(message, event_ids) for message in messages], at)
    except InputError as error:
        if len(messages) == 1:
            log.set_aside(messages[0], str(error))
            return Consumed(set_aside=1)
        middle = len(messages) // 2
        return _push_some(log, push, messages[:middle], event_ids, at) + _push_some(
            log, push, messages[middle:], event_ids, at
        )
    for rejected in result.rejected:
        log.set_aside(messages[rejected.row], rejected.reason)
    return Consumed(accepted=result.accepted, duplicates=result.duplicates, set_aside=len(result.rejected))


def _named(message: Message, event_ids: Sequence[str]) -> dict[str, Any]:
    row = message.row or {}
    missing = [name for name in event_ids if row.get(name) is None]
    return row | dict.fromkeys(missing, message.name) if missing else row
