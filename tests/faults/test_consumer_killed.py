"""`tidemill consume` under fire: killed while events flow, its stores cut off, stopped in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis
from own_redis import closed_with_redis
from ports import free_port
from waiting import PATIENCE, PATIENT, wait_until

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.tile_layout import rebuild_lock
from tidemill.project import Project, open_project
from tidemill.testing.kafka import MockKafka

EVENTS = 1_500
GROUP = "tidemill-flights"
HOUR = timedelta(hours=1)
FUNCTIONS = {"departures": (AggregationFunction.COUNT, ""), "delays": (AggregationFunction.SUM, "delay")}
VIEW = View(
    name="origin_delays", entities=("origin",), join_keys=("origin",), source="departures", stream="departed",
    features=tuple(Field(name=name, dtype=ValueType.INT64) for name in FUNCTIONS), event_id="flight_id",
    aggregations=tuple(
        Aggregation(name=name, function=function, column=column, window=HOUR, hop=timedelta(minutes=5))
        for name, (function, column) in FUNCTIONS.items()
    ),
)  # fmt: skip


class ToRedis:
    """Where the sender adds events, and the address under which they are consumed."""

    def __init__(self, url: str) -> None:
        self.address = f"{url}?stream=departed"
        self._client = redis.Redis.from_url(url)

    def send(self, bodies: list[bytes]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for body in bodies:
            pipe.xadd("departed", {"json": body})
        pipe.execute()


class ToKafka:
    def __init__(self, broker: MockKafka) -> None:
        self.address = f"kafka://{broker.servers}/departed?session.timeout.ms=1000&heartbeat.interval.ms=100"
        self._broker = broker
        broker.create_topic("departed", partitions=3)

    def send(self, bodies: list[bytes]) -> None:
        self._broker.send("departed", bodies)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "feature_store.yaml").write_text(
        "project: flights\ntidemill:\n  redis_maxmemory: 128mb\n  redis_timeout: 60\n"
    )
    opened = open_project(tmp_path)
    catalog = Catalog(
        project="flights",
        entities=(Entity(name="origin", join_key="origin", dtype=ValueType.STRING),),
        sources=(Source(name="departures", path="data/departures", timestamp_field="departed_at"),),
        streams=(Stream(name="departed", kind="push", source="departures"),),
        views=(VIEW,),
    )
    opened.catalogs.add(catalog, at=datetime(2013, 1, 1, tzinfo=UTC))
    with closed_with_redis(opened):
        yield opened


@pytest.fixture(params=["redis", "kafka"])
def log(request: pytest.FixtureRequest, project: Project) -> Iterator[Any]:
    if request.param == "redis":
        yield ToRedis(project.redis_address())
    else:
        with MockKafka() as broker:
            yield ToKafka(broker)


def events(now: datetime) -> list[bytes]:
    """Every tenth is sent twice, as a producer does that missed an answer."""
    made = [
        orjson.dumps(
            {"origin": "JFK", "delay": number, "flight_id": f"f{number}", "departed_at": now - timedelta(seconds=1)}
        )
        for number in range(EVENTS)
    ]
    return [body for number, body in enumerate(made) for _ in range(1 + (number % 10 == 0))]


def start(project: Project, log: Any, *options: str) -> subprocess.Popen[str]:
    """The real command. Its small batches make it likely to be killed between a push and its acknowledgement."""
    command = [sys.executable, "-m", "tidemill", "consume", "departed", "--from", log.address, "--batch", "20"]
    return subprocess.Popen(
        [*command, "--project", str(project.root), "--name", "one", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | PATIENT,
    )


def window(project: Project) -> tuple[int, int]:
    """Departures of the last hour, and the sum of their delays."""
    found = project.online.read_features([f"origin_delays:{name}" for name in FUNCTIONS], [{"origin": "JFK"}])
    return found.values["departures"][0], found.values["delays"][0] or 0


def wait_for(project: Project, count: int, process: subprocess.Popen[str]) -> None:
    def there() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return window(project)[0] >= count

    wait_until(there, every=0.002)


def test_killed_while_events_flow_no_event_is_lost_and_none_counts_twice(project: Project, log: Any) -> None:
    bodies = events(datetime.now(UTC))

    def send_slowly() -> None:
        for first in range(0, len(bodies), 100):
            log.send(bodies[first : first + 100])
            time.sleep(0.02)

    sender = threading.Thread(target=send_slowly)
    sender.start()
    try:
        for share in (0.2, 0.6):
            process = start(project, log)
            wait_for(project, int(share * EVENTS), process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
    finally:
        sender.join()
    last = start(project, log, "--drain", "--json")
    said = last.communicate(timeout=PATIENCE)[0]
    assert last.returncode == 0, said
    assert orjson.loads(said)["set_aside"] == 0
    assert window(project) == (EVENTS, EVENTS * (EVENTS - 1) // 2)


@pytest.mark.parametrize("log", ["redis"], indirect=True)
def test_what_a_consumer_had_in_hand_when_it_was_killed_for_good_is_taken_over(project: Project, log: Any) -> None:
    log.send(events(datetime.now(UTC)))
    with redis.Redis.from_url(project.redis_address()) as client:
        lock = rebuild_lock("flights", VIEW.name)
        client.set(lock, "nobody")  # pushes are refused, so that messages stay in hand
        doomed = start(project, log)
        try:
            wait_until(lambda: in_hand(client) == ["one"])
        finally:
            doomed.kill()
            doomed.communicate()
        assert (in_hand(client), window(project)[0]) == (["one"], 0)
        client.delete(lock)
        long_ago = [name for name, *_ in pending(client)]
        client.xclaim("departed", GROUP, "one", 0, long_ago, idle=120_000, justid=True)
        heir = start(project, log, "--drain", "--json", "--name", "two")
        said = heir.communicate(timeout=PATIENCE)[0]
        assert heir.returncode == 0, said
        assert orjson.loads(said) == {"accepted": EVENTS, "duplicates": EVENTS // 10, "set_aside": 0}
        assert (in_hand(client), window(project)) == ([], (EVENTS, EVENTS * (EVENTS - 1) // 2))


def pending(client: redis.Redis) -> list[tuple[bytes, str]]:
    """The messages that were delivered and not acknowledged, and who has them."""
    try:
        found: Any = client.xpending_range("departed", GROUP, "-", "+", EVENTS)
    except redis.ResponseError:  # nobody has made the group yet
        return []
    return [(one["message_id"], one["consumer"].decode()) for one in found]


def in_hand(client: redis.Redis) -> list[str]:
    """Who has messages in hand."""
    return sorted({consumer for _, consumer in pending(client)})


@pytest.mark.parametrize("log", ["redis"], indirect=True)
def test_told_to_stop_it_finishes_what_is_in_hand_and_acknowledges_it(project: Project, log: Any) -> None:
    log.send(events(datetime.now(UTC)))
    process = start(project, log)
    wait_for(project, 100, process)
    process.terminate()
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, said
    accepted = int(said.rsplit(" events accepted", 1)[0].rsplit("\n", 1)[-1].replace(",", ""))
    assert window(project)[0] == accepted
    rest = start(project, log, "--drain", "--json")
    found = orjson.loads(rest.communicate(timeout=PATIENCE)[0])
    assert accepted + found["accepted"] == EVENTS
    assert window(project)[0] == EVENTS


def test_while_the_online_store_is_gone_it_waits_and_says_so(project: Project, tmp_path: Path) -> None:
    port = free_port()
    with MockKafka() as broker:
        log = ToKafka(broker)
        process = start(project, log, "--port", str(port), "--every", "0.2")
        url, bodies = f"http://127.0.0.1:{port}", events(datetime.now(UTC))
        try:
            wait_until_health_is(url, well=True)
            log.send(bodies[:10])
            wait_for(project, 9, process)
            EmbeddedRedis(project.redis_folder).stop()
            log.send(bodies[10:])
            assert "Redis" in wait_until_health_is(url, well=False)["trouble"]
            project.redis_address()
            wait_for(project, EVENTS, process)
            health = wait_until_health_is(url, well=True)
            assert (health["accepted"], health["stream"]) == (EVENTS, "departed")
            metrics = httpx.get(f"{url}/metrics", timeout=PATIENCE).text
            assert f'tidemill_consumed_events_total{{stream="departed",outcome="accepted"}} {EVENTS}' in metrics
            assert 'tidemill_consumer_well{stream="departed"} 1' in metrics
            assert httpx.get(f"{url}/elsewhere", timeout=PATIENCE).status_code == 404
        finally:
            process.terminate()
            said = process.communicate(timeout=PATIENCE)[0]
    assert f"{EVENTS:,} events accepted" in said
    assert "Redis" in said
    assert "behind" in said


def wait_until_health_is(url: str, *, well: bool) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            answer = httpx.get(f"{url}/healthz", timeout=PATIENCE)
            if answer.json()["well"] is well:
                assert answer.status_code == (200 if well else 503)
                return answer.json()
        except httpx.TransportError:
            pass  # it does not listen yet
        assert time.monotonic() < end
        time.sleep(0.05)
