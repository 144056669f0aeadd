"""A Kafka topic as a log of events, read by a consumer group. Needs `tidemill[kafka]`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tidemill.errors import ConfigurationError, UnavailableError
from tidemill.online.bounded_calls import BoundedCalls
from tidemill.online.event_log import Message, message_of

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka import Message as KafkaMessage

_log = logging.getLogger("tidemill.kafka")
_OURS = {"group.id", "enable.auto.commit", "enable.auto.offset.store", "bootstrap.servers"}
_ALIKE = ("bootstrap.", "security.", "sasl.", "ssl.", "client.", "socket.", "broker.", "log")
_PATIENCE = 10.0  # seconds for Kafka to take a message, or to say how far it is
_LONGEST_CALL = 60.0
"""Seconds for Kafka to take offsets, or to let a consumer go: longer than its client takes where a broker is gone.
Where one stands still the client asks it again and again, and would never come back."""
_MOST_HEARD = 10_000  # messages that were fetched and are dropped, since nobody has asked for them
_MOST_KEPT, _MOST_SAID = 900_000, 10_000
"""Bytes of a message, and signs of a reason, that are kept aside: Kafka takes a million by default, and one message
that it never takes would stop everybody."""


class KafkaLog:
    """A message's value is a JSON object; its name is `topic/partition/offset`.

    Offsets are committed when messages are acknowledged and at no other time, so whoever is killed before that leaves
    them to be delivered again. What cannot be pushed goes to the topic `{topic}.set-aside`, as it came (of a very long
    one the first 900 kB), with its name and the reason as headers.

    Args:
        address: `kafka://host:port,host:port/topic`, with `user:password@` before the hosts for SASL and any property
            of librdkafka behind a question mark: `?security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512`.
        group: consumers of one group share the partitions.
        consumer: this consumer's name in Kafka's own lists.

    Raises ConfigurationError where the client is not installed or the address cannot be used.
    """

    def __init__(self, address: str, *, group: str, consumer: str) -> None:
        self._topic, shared = read_kafka_address(address)
        self._kafka = find_client()
        self._shared = shared | {"client.id": consumer}
        self._unacknowledged: dict[int, int] = {}
        self._trouble: str | None = None
        self._producer: Producer | None = None
        self._calls = BoundedCalls("tidemill-kafka")
        self._consumer: Consumer = self._open(
            self._kafka.Consumer,
            {"auto.offset.reset": "earliest"}
            | self._shared
            | {"group.id": group, "enable.auto.commit": False, "error_cb": self._note},
        )
        self._consumer.subscribe([self._topic])
        self._closed = False

    def poll(self, *, limit: int, wait: float) -> Sequence[Message]:
        first = self._consumer.poll(wait)
        if first is None:
            self._raise_trouble()
            return []
        found = [first, *(self._consumer.consume(limit - 1, 0) if limit > 1 else ())]
        messages = [one for one in found if one.error() is None]
        for one in messages:
            self._unacknowledged.setdefault(*_place_of(one))
        for error in filter(None, (one.error() for one in found)):
            if error.code() != self._kafka.KafkaError._MAX_POLL_EXCEEDED:  # we rejoin by asking again
                raise _unavailable(error)  # a rewind delivers all of them again, those behind the error too
        self._trouble = None
        return [self._message(one) for one in messages]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        if self._producer is not None and self._producer.flush(_PATIENCE):
            raise UnavailableError("Kafka did not take messages that were set aside.", hint="Look at its brokers.")
        self._raise_trouble()
        nexts: dict[int, int] = {}
        for message in messages:
            _, partition, offset = message.name.rsplit("/", 2)
            nexts[int(partition)] = max(nexts.get(int(partition), 0), int(offset) + 1)
        if nexts:
            self._commit(nexts)
        for partition in nexts:
            self._unacknowledged.pop(partition, None)

    def set_aside(self, message: Message, reason: str) -> None:
        producer = self._producer or self._open_producer()
        if len(message.body) > _MOST_KEPT:
            reason = f"{reason} (here are {_MOST_KEPT:,} of its {len(message.body):,} bytes)"
        headers: dict[str, str | bytes | None] = {"message": message.name, "reason": reason[:_MOST_SAID]}
        body = message.body[:_MOST_KEPT]
        producer.produce(f"{self._topic}.set-aside", body, headers=headers, on_delivery=self._delivered)
        producer.poll(0)

    def rewind(self) -> None:
        partition_of = self._kafka.TopicPartition
        for partition, offset in self._unacknowledged.items():
            try:
                self._consumer.seek(partition_of(self._topic, partition, offset))
            except self._kafka.KafkaException:
                _log.info("partition %d is somebody else's now, who begins where we last committed", partition)
        self._unacknowledged.clear()

    def lag(self) -> int | None:
        """Of the partitions that this consumer has; None while it has none."""
        mine = self._consumer.assignment()
        try:
            return sum(self._behind(place) for place in self._consumer.position(mine)) if mine else None
        except self._kafka.KafkaException as error:
            raise _unavailable(error.args[0]) from error

    def close(self) -> None:
        """Leave the group, and wait for what was set aside to be taken; not for ever, whatever Kafka does.

        What the group has told meanwhile is heard first: librdkafka's own close waits for ever where an assignment is
        left that nobody has looked at (its issue 4884), as when a consumer is stopped while others come and go.
        """
        if not self._closed:
            self._closed = True
            try:
                self._calls.run(self._leave, seconds=_LONGEST_CALL)
            except TimeoutError:
                _log.warning("Kafka did not let %s go; its group misses it soon.", self._shared["client.id"])
        if self._producer is not None:
            self._producer.flush(_PATIENCE)

    def _leave(self) -> None:
        self._consumer.unsubscribe()
        self._consumer.consume(_MOST_HEARD, 0)
        self._consumer.close()

    def _open_producer(self) -> Producer:
        alike = {name: value for name, value in self._shared.items() if name.startswith(_ALIKE)}
        producer = self._open(self._kafka.Producer, alike | {"message.timeout.ms": round(_PATIENCE * 1_000)})
        self._producer = producer
        return producer

    def _behind(self, place: Any) -> int:
        """Messages of a partition after those dealt with: by what is in hand, what was read last, or the group."""
        read: int = place.offset
        done = self._unacknowledged.get(place.partition, read)
        if done < 0:
            done = self._consumer.committed([place], timeout=_PATIENCE)[0].offset or 0
        first, end = self._consumer.get_watermark_offsets(place, timeout=_PATIENCE) or (done, done)
        return end - max(done, first)

    def _message(self, one: KafkaMessage) -> Message:
        partition, offset = _place_of(one)
        return message_of(f"{self._topic}/{partition}/{offset}", one.value())

    def _commit(self, nexts: dict[int, int]) -> None:
        errors = self._kafka.KafkaError
        lost = {errors.ILLEGAL_GENERATION, errors.UNKNOWN_MEMBER_ID, errors.REBALANCE_IN_PROGRESS, errors._STATE}
        places = [self._kafka.TopicPartition(self._topic, *place) for place in nexts.items()]
        try:
            done = self._calls.run(
                lambda: self._consumer.commit(offsets=places, asynchronous=False), seconds=_LONGEST_CALL
            )
            failed = [place.error for place in done or [] if place.error is not None]
        except TimeoutError as error:
            raise UnavailableError(
                f"Kafka did not take offsets within {_LONGEST_CALL:g} s.",
                hint="It is asked again; look at its brokers.",
            ) from error
        except self._kafka.KafkaException as error:
            failed = [error.args[0]]
        for error in failed:
            if error.code() not in lost:
                raise _unavailable(error)
            _log.warning("these messages went to another consumer meanwhile, who repeats them: %s", error.str())

    def _open(self, kind: Any, config: dict[str, Any]) -> Any:
        try:
            return kind(config, logger=_log)
        except self._kafka.KafkaException as error:
            raise ConfigurationError(
                f"Kafka's client refuses this address: {error.args[0].str()}.",
                hint="Properties behind `?` are those of librdkafka.",
            ) from None

    def _note(self, error: KafkaError) -> None:
        """Called within a poll, of what concerns no single message."""
        known = self._kafka.KafkaError
        if error.fatal() or error.code() in (known._ALL_BROKERS_DOWN, known._AUTHENTICATION, known._RESOLVE):
            self._trouble = error.str()

    def _delivered(self, error: KafkaError | None, _: KafkaMessage) -> None:
        if error is not None:
            self._trouble = f"a message could not be set aside: {error.str()}"

    def _raise_trouble(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise UnavailableError(f"Kafka does not answer: {trouble}.", hint="It is asked again; look at its brokers.")


def read_kafka_address(address: str) -> tuple[str, dict[str, Any]]:
    """The topic, and librdkafka's properties. Raises ConfigurationError; the address may hold a password and is not
    repeated."""
    parts = urlsplit(address)
    credentials, _, hosts = parts.netloc.rpartition("@")
    topic, given = unquote(parts.path.strip("/")), dict(parse_qsl(parts.query))
    if parts.scheme != "kafka" or not hosts or not topic:
        raise ConfigurationError("This is not the address of a topic.", hint="Write kafka://host:port/topic.")
    if wrong := sorted(_OURS & set(given)):
        raise ConfigurationError(f"{', '.join(wrong)} cannot be set in the address.", hint="Offsets are ours to keep.")
    user, _, password = credentials.partition(":")
    login = {"sasl.username": unquote(user), "sasl.password": unquote(password)} if credentials else {}
    return topic, {"bootstrap.servers": hosts} | login | given


def find_client() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigurationError(
            "The Kafka client is not installed.", hint="Install it with `pip install 'tidemill[kafka]'`."
        ) from error
    return confluent_kafka


def _place_of(one: KafkaMessage) -> tuple[int, int]:
    return one.partition() or 0, one.offset() or 0


def _unavailable(error: KafkaError) -> UnavailableError:
    return UnavailableError(f"Kafka refused: {error.str()}.", hint="It is asked again; look at its brokers and rights.")
