"""A Kafka broker for tests: the mock cluster that librdkafka brings, on a port of 127.0.0.1.

It speaks Kafka's wire protocol, consumer groups and their rebalancing included, and keeps nothing when it is closed.
The Python client can only start it for itself; through the library's C interface any client may connect, and groups
need not wait for members that might still come. Needs `tidemill[kafka]`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from confluent_kafka import Consumer, Producer, TopicPartition, cimpl

_PRODUCER = 0
_PATIENCE = 120.0  # seconds; run out of only where something is wrong


class MockKafka:
    """One broker. Use as a context manager."""

    def __init__(self) -> None:
        self._library = _library()
        error = ctypes.create_string_buffer(512)
        config = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(config, b"bootstrap.servers", b"127.0.0.1:1", error, len(error))
        self._library.rd_kafka_conf_set(config, b"log_level", b"0", error, len(error))
        self._handle = self._library.rd_kafka_new(_PRODUCER, config, error, len(error))
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, 1)
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def __enter__(self) -> MockKafka:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)

    def create_topic(self, name: str, *, partitions: int = 1) -> None:
        self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)

    def set_up(self, *, up: bool) -> None:
        """Cut off every client, or let them connect again."""
        change = self._library.rd_kafka_mock_broker_set_up if up else self._library.rd_kafka_mock_broker_set_down
        change(self._cluster, 1)

    def send(self, topic: str, bodies: Sequence[bytes | None]) -> None:
        """Add messages to a topic, spread over its partitions in turn."""
        producer = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        partitions = len(producer.list_topics(topic, timeout=_PATIENCE).topics[topic].partitions)
        for number, body in enumerate(bodies):
            producer.produce(topic, body, partition=number % partitions)
        producer.flush(_PATIENCE)

    def committed(self, topic: str, group: str) -> int:
        """How many messages of a topic a group has dealt with, over all partitions."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": group, "log_level": 0})
        try:
            partitions = consumer.list_topics(topic, timeout=_PATIENCE).topics[topic].partitions
            places = consumer.committed([TopicPartition(topic, number) for number in partitions], timeout=_PATIENCE)
            return sum(max(place.offset or 0, 0) for place in places)
        finally:
            consumer.close()

    def messages(self, topic: str, count: int) -> list[tuple[bytes | None, dict[str, str]]]:
        """The first messages of a topic, partition by partition: each one's value and headers."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "reader", "log_level": 0})
        try:
            partitions = consumer.list_topics(topic, timeout=_PATIENCE).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            found = [one for one in consumer.consume(count, timeout=_PATIENCE) if one.error() is None]
            return [(one.value(), {name: _text(value) for name, value in one.headers() or ()}) for one in found]
        finally:
            consumer.close()


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _library() -> ctypes.CDLL:
    """librdkafka as the Python client has loaded it, with the types of what is called here."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    size = ctypes.c_size_t
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, size)),
        ("rd_kafka_new", pointer, (number, pointer, text, size)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_new", pointer, (pointer, number)),
        ("rd_kafka_mock_cluster_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_topic_create", number, (pointer, text, number, number)),
        ("rd_kafka_mock_broker_set_up", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_down", number, (pointer, ctypes.c_int32)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
