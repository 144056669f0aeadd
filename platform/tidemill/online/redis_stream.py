"""A Redis Stream as a log of events, read by a consumer group. Needs Redis 6.2 or newer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from tidemill.errors import ConfigurationError
from tidemill.online.event_log import Message, message_of
from tidemill.online.resp import RedisReplyError, RespClient

_COUNTED = 1_000
_SET_ASIDE = 100_000
"""How many messages are kept aside; beyond that the oldest go, so that a broken sender does not fill Redis."""


class RedisStreamLog:
    """A message is one field `json` with an object, or one field for each column (JSON where possible, else text).

    First come the messages that this consumer took and did not acknowledge before it died, then those of consumers
    that have been silent for `claim_after` seconds, then new ones. What cannot be pushed goes to the stream
    `{stream}:set-aside` with its reason. The group is created, with the stream, where it is missing.

    Args:
        client: its timeout must be longer than any `wait`.
        stream: the stream's key.
        group: consumers of one group share the messages.
        consumer: this consumer's name; a restarted process keeps it to take up where it was.
    """

    def __init__(
        self, client: RespClient, *, stream: str, group: str, consumer: str, claim_after: float = 60.0
    ) -> None:
        self._client, self._stream, self._group, self._consumer = client, stream, group, consumer
        self._claim_after = round(claim_after * 1_000)
        self._own_from: str | None = "0"
        self._claim_from: str | bytes = "0"
        self._grouped = False

    def poll(self, *, limit: int, wait: float) -> Sequence[Message]:
        self._create_group()
        try:
            return self._own(limit) or self._abandoned(limit) or self._fresh(limit, wait)
        except RedisReplyError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._grouped = False  # somebody deleted the stream; what is added to it from now on is read
            return []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        self._acknowledge([message.name for message in messages])

    def set_aside(self, message: Message, reason: str) -> None:
        kept = ("message", message.name, "reason", reason, "body", message.body)
        self._client.call("XADD", f"{self._stream}:set-aside", "MAXLEN", "~", _SET_ASIDE, "*", *kept)

    def rewind(self) -> None:
        self._own_from = "0"

    def lag(self) -> int:
        """Delivered ones that are not acknowledged, and those to come; Redis before 7 counts at most 1,000 of these."""
        self._create_group()
        for group in self._client.call("XINFO", "GROUPS", self._stream):
            found = dict(zip(group[::2], group[1::2], strict=True))
            if found[b"name"].decode() == self._group:
                return found[b"pending"] + self._to_come(found)
        return 0

    def close(self) -> None:
        self._client.close()

    def _to_come(self, group: dict[bytes, Any]) -> int:
        if group.get(b"lag") is not None:
            return group[b"lag"]
        after = b"(" + group[b"last-delivered-id"]
        return len(self._client.call("XRANGE", self._stream, after, "+", "COUNT", _COUNTED))

    def _create_group(self) -> None:
        if self._grouped:
            return
        try:
            self._client.call("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except RedisReplyError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._grouped = True

    def _own(self, limit: int) -> list[Message]:
        """What this consumer was given before and has not acknowledged, until there is no more of it."""
        while self._own_from is not None:
            names, found = self._read(limit, self._own_from, block=None)
            self._own_from = names[-1] if names else None
            if found:
                return found
        return []

    def _abandoned(self, limit: int) -> list[Message]:
        """The next messages of consumers that are silent; each call looks on from where the last one stopped, since
        Redis looks at some at a time."""
        # A second answer would not hold what the first has claimed; see `_read`.
        command = ("XAUTOCLAIM", self._stream, self._group, self._consumer, self._claim_after, self._claim_from)
        self._claim_from, entries, *_ = self._client.call(*command, "COUNT", limit, retry=False)
        if any(entry is None or entry[1] is None for entry in entries):
            self._own_from = (
                "0"  # trimmed, and ours now: Redis before 7 keeps it pending until somebody says it is done
            )
        return [_message(*entry) for entry in entries if entry is not None and entry[1] is not None]

    def _fresh(self, limit: int, wait: float) -> list[Message]:
        return self._read(limit, ">", block=max(round(wait * 1_000), 1))[1]

    def _read(self, limit: int, start: str, *, block: int | None) -> tuple[list[str], list[Message]]:
        """The names that were delivered, and the messages that are still there."""
        waiting = () if block is None else ("BLOCK", block)
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", limit, *waiting)
        # A second answer to the same question would hold other messages; those of the first are pending, not lost.
        answer = self._client.call(*command, "STREAMS", self._stream, start, retry=False)
        entries = answer[0][1] if answer else []
        self._acknowledge(
            [name.decode() for name, fields in entries if fields is None]
        )  # trimmed before they were read
        return [name.decode() for name, _ in entries], [_message(*entry) for entry in entries if entry[1] is not None]

    def _acknowledge(self, names: Sequence[str]) -> None:
        if names:
            self._client.call("XACK", self._stream, self._group, *names)


def read_stream_address(address: str) -> tuple[str, str]:
    """The address of the Redis, and the stream's key. Raises ConfigurationError; never repeats what may be secret."""
    server, _, query = address.partition("?")
    given = dict(parse_qsl(query))
    stream = given.pop("stream", "")
    if not stream:
        raise ConfigurationError(
            "This address names no stream.", hint="Write redis://host:port/0?stream=key, or kafka://host:port/topic."
        )
    return f"{server}?{urlencode(given)}" if given else server, stream


def _message(name: bytes, fields: Sequence[bytes]) -> Message:
    pairs = {fields[i].decode(errors="replace"): fields[i + 1] for i in range(0, len(fields), 2)}
    if set(pairs) == {"json"}:
        return message_of(name.decode(), pairs["json"])
    row = {column: _value(text) for column, text in pairs.items()}
    return Message(name=name.decode(), row=row, body=orjson.dumps(row))


def _value(text: bytes) -> Any:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode(errors="replace")
    return found if isinstance(found, int | float | bool | None) else text.decode(errors="replace")
