"""What is particular to a Kafka topic as a log of events; what every log must hold is in the contract tests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError
from waiting import PATIENCE, wait_until

from tidemill.errors import UnavailableError
from tidemill.online.event_log import Message
from tidemill.online.kafka_topic import KafkaLog
from tidemill.testing.kafka import MockKafka


class Error:
    """What Kafka's client hands out in place of a message."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._TRANSPORT)


class Stumbling:
    """A Kafka consumer that once brings an error before the messages."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self._errors = consumer, [Error()]

    def consume(self, limit: int, wait: float) -> list[Any]:
        found = self._consumer.consume(limit, wait)
        return [self._errors.pop(), *found] if found and self._errors else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


@pytest.fixture
def broker() -> Iterator[MockKafka]:
    with MockKafka() as broker:
        broker.create_topic("departed", partitions=8)
        broker.send("departed", [b'{"n": %d}' % number for number in range(40)])
        yield broker


def first_of(log: KafkaLog) -> Sequence[Message]:
    found: list[Message] = []

    def polled() -> bool:
        found.extend(log.poll(limit=30, wait=0.2))
        return bool(found)

    wait_until(polled)
    return found


def poll_until_it_fails(log: KafkaLog) -> None:
    for _ in range(40):
        first_of(log)


def test_messages_that_come_behind_an_error_are_delivered_again(broker: MockKafka) -> None:
    log = KafkaLog(f"kafka://{broker.servers}/departed", group="windows", consumer="one")
    log._consumer = Stumbling(log._consumer)  # type: ignore[assignment]
    try:
        with pytest.raises(UnavailableError):
            poll_until_it_fails(log)
        log.rewind()
        found: set[int] = set()
        for _ in range(40):
            messages = log.poll(limit=30, wait=0.2)
            found |= {message.row["n"] for message in messages if message.row is not None}
            log.acknowledge(messages)
            if len(found) == 40:
                break
    finally:
        log.close()
    assert found == set(range(40))
    assert broker.committed("departed", "windows") == 40


def test_a_message_too_large_for_kafka_is_set_aside_in_part_and_stops_nobody(broker: MockKafka) -> None:
    broker.create_topic("departed.set-aside")
    log = KafkaLog(f"kafka://{broker.servers}/departed", group="windows", consumer="one")
    aside = KafkaLog(f"kafka://{broker.servers}/departed.set-aside", group="people", consumer="me")
    try:
        log.set_aside(
            Message(name="departed/0/7", row=None, body=b"[" * 3_000_000), "its body is not JSON " + "x" * 2_000_000
        )
        log.acknowledge([])
        (kept,) = first_of(aside)
    finally:
        log.close()
        aside.close()
    assert kept.body == b"[" * 900_000


def test_consumers_may_be_closed_at_any_moment(broker: MockKafka) -> None:
    """Also where one is to get partitions just then: Kafka's client would wait for ever to hand them out."""

    def come_and_go(chance: random.Random) -> None:
        for number in range(30):
            log = KafkaLog(f"kafka://{broker.servers}/departed", group=f"{chance.random()}", consumer="one")
            time.sleep(0.01 * chance.randrange(number + 1))
            log.close()

    going = [threading.Thread(target=come_and_go, args=(random.Random(n),), daemon=True) for n in range(8)]
    for thread in going:
        thread.start()
    for thread in going:
        thread.join(PATIENCE)
        assert not thread.is_alive()


class StandingStill:
    """A Kafka consumer whose commits wait for a broker that is connected and answers nothing."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self.goes_on = consumer, threading.Event()

    def commit(self, **given: Any) -> Any:
        assert self.goes_on.wait(PATIENCE)
        return self._consumer.commit(**given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def test_a_broker_that_stands_still_keeps_nobody_for_ever(broker: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    log = KafkaLog(f"kafka://{broker.servers}/departed", group="windows", consumer="one")
    messages = first_of(log)
    log._consumer = still = StandingStill(log._consumer)  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr("tidemill.online.kafka_topic._LONGEST_CALL", 0.05)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="did not take offsets within"):
                log.acknowledge(messages)
    still.goes_on.set()
    wait_until(lambda: is_acknowledged(log, messages))
    log.close()
    assert broker.committed("departed", "windows") == len(messages)


def is_acknowledged(log: KafkaLog, messages: Sequence[Message]) -> bool:
    try:
        log.acknowledge(messages)
    except UnavailableError:
        return False
    return True


def test_a_consumer_that_kafka_does_not_let_go_is_left_behind(
    broker: MockKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = KafkaLog(f"kafka://{broker.servers}/departed", group="windows", consumer="one")
    let_go = threading.Event()
    leave = log._leave
    monkeypatch.setattr(log, "_leave", lambda: (let_go.wait(PATIENCE), leave()))
    monkeypatch.setattr("tidemill.online.kafka_topic._LONGEST_CALL", 0.05)
    log.close()
    assert "did not let one go" in caplog.text
    let_go.set()
    wait_until(lambda: not any(thread.name == "tidemill-kafka" for thread in threading.enumerate()))
