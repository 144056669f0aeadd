"""What every log of events must hold, over a real Redis Stream and Kafka's wire protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
from online_stores import open_store
from own_redis import redis_in
from waiting import wait_until

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.errors import ConfigurationError, ConflictError, OnlineStoreUnavailableError, UnavailableError
from tidemill.online.consumer import Consumed, consume, open_log
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.event_log import EventLog, Message
from tidemill.online.keys import key_layout
from tidemill.online.push import write_events
from tidemill.online.resp import RespClient
from tidemill.online.store import OnlineStore
from tidemill.online.tiles import TilePlan
from tidemill.testing.kafka import MockKafka

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
GROUP = "windows"
VIEW = View(
    name="origin_delays", entities=("origin",), join_keys=("origin",), source="departures", stream="departed",
    features=(Field(name="departures", dtype=ValueType.INT64),), event_id="flight_id",
    aggregations=(
        Aggregation(
            name="departures", function=AggregationFunction.COUNT, column="", window=HOUR, hop=timedelta(minutes=5)
        ),
    ),
)  # fmt: skip
CATALOG = Catalog(
    project="flights",
    entities=(Entity(name="origin", join_key="origin", dtype=ValueType.STRING),),
    sources=(Source(name="departures", path="departures", timestamp_field="departed_at"),),
    streams=(Stream(name="departed", kind="push", source="departures"),),
    views=(VIEW,),
)


class Kind(Protocol):
    """One kind of log, as the tests use it."""

    def open(self, consumer: str = "one") -> EventLog: ...
    def send(self, *bodies: bytes | None) -> None: ...
    def unacknowledged(self, sent: int) -> int: ...
    def aside(self, count: int) -> list[tuple[bytes, str, str]]:
        """Of each message that was set aside: body, reason and name."""
        ...

    def cut(self, *, off: bool) -> None: ...


class RedisStreams:
    def __init__(self, server: EmbeddedRedis) -> None:
        self._server = server
        self._client = RespClient(server.ensure_started())
        self._client.call("FLUSHALL")

    def open(self, consumer: str = "one") -> EventLog:
        return open_log(f"{self._server.url}?stream=departed", group=GROUP, consumer=consumer, claim_after=0.0)

    def send(self, *bodies: bytes | None) -> None:
        for body in bodies:
            self._client.call("XADD", "departed", "*", "json", body or b"")

    def unacknowledged(self, sent: int) -> int:  # noqa: ARG002 - Kafka's needs it
        (group,) = self._client.call("XINFO", "GROUPS", "departed")
        found = dict(zip(group[::2], group[1::2], strict=True))
        after = b"(" + found[b"last-delivered-id"]
        return found[b"pending"] + len(self._client.call("XRANGE", "departed", after, "+"))

    def aside(self, count: int) -> list[tuple[bytes, str, str]]:  # noqa: ARG002 - Kafka's needs it
        kept = self._client.call("XRANGE", "departed:set-aside", "-", "+")
        found = [dict(zip(entry[1][::2], entry[1][1::2], strict=True)) for entry in kept]
        return [(one[b"body"], one[b"reason"].decode(), one[b"message"].decode()) for one in found]

    def cut(self, *, off: bool) -> None:
        if off:
            self._client.call("SAVE")
            self._server.stop()
        else:
            self._server.ensure_started()


class Kafka:
    def __init__(self, broker: MockKafka) -> None:
        self._broker = broker
        broker.create_topic("departed", partitions=2)

    def open(self, consumer: str = "one") -> EventLog:
        quick = "session.timeout.ms=3000&heartbeat.interval.ms=100&fetch.wait.max.ms=20&reconnect.backoff.max.ms=100"
        address = f"kafka://{self._broker.servers}/departed?{quick}&log_level=0"
        return open_log(address, group=GROUP, consumer=consumer)

    def send(self, *bodies: bytes | None) -> None:
        self._broker.send("departed", bodies)

    def unacknowledged(self, sent: int) -> int:
        return sent - self._broker.committed("departed", GROUP)

    def aside(self, count: int) -> list[tuple[bytes, str, str]]:
        found = self._broker.messages("departed.set-aside", count)
        return [(body or b"", headers["reason"], headers["message"]) for body, headers in found]

    def cut(self, *, off: bool) -> None:
        self._broker.set_up(up=not off)


@pytest.fixture(scope="module")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("windows") / "redis", maxmemory="64mb") as server:
        yield server


@pytest.fixture(scope="module")
def log_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with redis_in(tmp_path_factory.mktemp("events") / "redis", maxmemory="64mb") as server:
        yield server


@pytest.fixture(params=["redis", "kafka"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    if request.param == "redis":
        yield RedisStreams(request.getfixturevalue("log_server"))
    else:
        with MockKafka() as broker:
            yield Kafka(broker)


@pytest.fixture
def opened(kind: Kind) -> Iterator[Callable[..., EventLog]]:
    """Opens logs, and closes them in the end."""
    logs: list[EventLog] = []

    def open_one(consumer: str = "one") -> EventLog:
        logs.append(kind.open(consumer))
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


@pytest.fixture
def store(store_server: EmbeddedRedis, tmp_path: Path) -> OnlineStore:
    store = open_store(CATALOG, store_server.ensure_started(), at=NOW, root=tmp_path)
    store.resp.call("FLUSHALL")
    return store


def departure(number: int, **others: Any) -> bytes:
    return orjson.dumps({"origin": "JFK", "departed_at": NOW.isoformat(), "flight_id": str(number)} | others)


def counted(store: OnlineStore) -> int:
    plan = TilePlan("flights", [(VIEW, ["departures"])])
    keys = [plan.key(0, key_layout(CATALOG, VIEW).encode(["JFK"]))]
    blobs = store.resp.pipeline([("GET", key) for key in keys])
    return plan.decode([blobs], to_micros(NOW))[0].values["departures"][0]


def run(store: OnlineStore, log: EventLog, events: int, **options: Any) -> Consumed:
    """Consume until so many events have been dealt with."""
    done = Consumed()

    def after(some: Consumed) -> None:
        nonlocal done
        done += some

    def enough() -> bool:
        return done.accepted + done.duplicates + done.set_aside >= events

    settings = {"push": lambda rows, at: write_events(store, "departed", rows, at), "stop": enough, "wait": 0.2}
    consume(log, clock=ManualClock(NOW), event_ids=["flight_id"], after=after, **(settings | options))
    return done


def test_messages_are_pushed_and_then_acknowledged(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(departure(1), departure(2), departure(3))
    done = run(store, opened(), 3)
    assert (done.accepted, done.duplicates, done.set_aside) == (3, 0, 0)
    assert (counted(store), kind.unacknowledged(3)) == (3, 0)


def test_a_message_without_an_event_id_is_named_by_the_log(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(departure(1, flight_id=None), departure(1, flight_id=None))
    assert run(store, opened(), 2).accepted == 2
    assert counted(store) == 2


def test_what_was_pushed_but_not_acknowledged_is_delivered_again_and_counts_once(
    kind: Kind, opened: Any, store: OnlineStore
) -> None:
    kind.send(*(departure(number) for number in range(10)))
    dying, taken = opened("dying"), []
    while len(taken) < 6:
        taken += dying.poll(limit=6 - len(taken), wait=0.2)
    write_events(store, "departed", [message.row for message in taken[:3]], NOW)
    dying.close()
    done = run(store, opened("heir"), 10)
    assert (done.accepted, done.duplicates) == (7, 3)
    assert (counted(store), kind.unacknowledged(10)) == (10, 0)


def test_a_consumer_that_starts_again_goes_on_where_it_stopped(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(*(departure(number) for number in range(4)))
    first = opened()
    run(store, first, 4)
    first.close()
    kind.send(departure(4), departure(5))
    done = run(store, opened(), 2)
    assert (done.accepted, done.duplicates, counted(store)) == (2, 0, 6)


def test_a_push_that_fails_is_tried_again_with_the_same_messages(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(*(departure(number) for number in range(6)))
    troubles: list[Exception] = [OnlineStoreUnavailableError("Redis is gone."), ConflictError("Tiles are rebuilt.")]
    told: list[Exception] = []

    def push(rows: Any, at: datetime) -> Any:
        if troubles:
            raise troubles.pop(0)
        return write_events(store, "departed", rows, at)

    def try_again(trouble: Exception) -> bool:
        assert kind.unacknowledged(6) == 6
        told.append(trouble)
        return True

    done = run(store, opened(), 6, push=push, try_again=try_again, limit=2)
    assert [str(trouble) for trouble in told] == ["Redis is gone.", "Tiles are rebuilt."]
    assert (done.accepted, done.duplicates) == (6, 0)
    assert (counted(store), kind.unacknowledged(6)) == (6, 0)


def test_nothing_is_acknowledged_where_a_failed_push_is_given_up(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(departure(1))

    def gone(rows: Any, at: datetime) -> Any:
        raise OnlineStoreUnavailableError("Redis does not answer.")

    log = opened()
    with pytest.raises(OnlineStoreUnavailableError):
        run(store, log, 1, push=gone)
    assert kind.unacknowledged(1) == 1
    assert run(store, log, 1).accepted == 1


def test_bad_messages_are_set_aside_as_they_came_with_their_reason_and_stop_nobody(
    kind: Kind, opened: Any, store: OnlineStore
) -> None:
    bad = {
        b"{broken": "its body is not JSON",
        b"[1]": "its body is JSON, but no object",
        b"": "it has no body",
        b"\xff\xfe": "its body is not JSON",
        departure(2, departed_at="soon"): "Column 'departed_at' holds a time that cannot be read",
        departure(3, departed_at=(NOW + HOUR).isoformat()): "its event time is further ahead",
        departure(4, origin=None): "a join key is null",
        departure(5, origin=["JFK"]): "Column 'origin' is List",
        departure(6, departed_at={"year": 2013}): "Column 'departed_at' is Struct",
        b'{"origin": "JFK"}': "Rows for stream 'departed' lack 'departed_at'",
        departure(7, departed_at=2**63): "Column 'departed_at'",
        departure(8, departed_at="9999-12-31T23:59:59-10:00"): "Column 'departed_at' holds a time that cannot be read",
    }
    kind.send(departure(0), *bad, departure(99))
    done = run(store, opened(), len(bad) + 2)
    assert (done.accepted, done.set_aside) == (2, len(bad))
    aside = kind.aside(len(bad))
    assert {body for body, _, _ in aside} == set(bad)
    for body, reason, name in aside:
        assert reason.startswith(bad[body]), (body, reason)
        assert name
    assert (counted(store), kind.unacknowledged(len(bad) + 2)) == (2, 0)


def test_the_lag_is_what_is_still_to_be_dealt_with(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(*(departure(number) for number in range(8)))
    log, taken = opened(), list[Message]()
    wait_until(lambda: taken.extend(log.poll(limit=1, wait=0.2)) or taken)
    assert log.lag() == 8
    log.acknowledge(taken)
    assert log.lag() == 7
    run(store, log, 7)
    assert log.lag() == 0


def test_a_log_that_is_cut_off_is_asked_again_and_nothing_is_lost(kind: Kind, opened: Any, store: OnlineStore) -> None:
    kind.send(departure(1), departure(2))
    log = opened()
    run(store, log, 2)
    kind.cut(off=True)
    told: list[Exception] = []

    def try_again(trouble: Exception) -> bool:
        assert isinstance(trouble, UnavailableError)
        told.append(trouble)
        if len(told) == 1:
            kind.cut(off=False)
            kind.send(departure(3), departure(4))
        return True

    done = run(store, log, 2, try_again=try_again)
    assert told
    assert (done.accepted + done.duplicates, counted(store), kind.unacknowledged(4)) == (2, 4, 0)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("redis://localhost:6379/0", "names no stream"),
        ("kafka://localhost:9092", "not the address of a topic"),
        ("kafka://u:geheim@localhost:9092/t?no.such.property=1", "refuses this address"),
        ("kafka://localhost:9092/t?enable.auto.commit=true", r"enable\.auto\.commit cannot be set"),
        ("amqp://localhost/?stream=a", "not the address of a Redis"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(address: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_log(address, group=GROUP, consumer="one")
    assert "geheim" not in str(caught.value)
