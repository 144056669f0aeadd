"""Events taken from a Redis Stream: none lost, none counted twice, whoever dies when."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType
from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.consumer import RedisStreamLog, consume
from tidemill.online.keys import key_layout
from tidemill.online.push import write_events
from tidemill.online.resp import RespClient
from tidemill.online.store import OnlineStore
from tidemill.online.tiles import TilePlan
from tidemill.settings import Settings

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
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


def store_at(address: str) -> OnlineStore:
    settings = Settings(redis_timeout=10)
    return OnlineStore(
        address=address, project="flights", catalog=CATALOG, settings=settings, root=Path(), clock=ManualClock(NOW)
    )


def pusher(address: str) -> Any:
    store = store_at(address)
    return lambda rows, at: write_events(store, "departed", rows, at)


def log_at(address: str, consumer: str = "one", **options: Any) -> RedisStreamLog:
    client = RespClient(address, timeout=10)
    return RedisStreamLog(client, stream="departed", group="windows", consumer=consumer, **options)


def send(address: str, *rows: Any) -> None:
    client = RespClient(address)
    for row in rows:
        client.call("XADD", "departed", "*", "json", row if isinstance(row, bytes) else orjson.dumps(row))


def departure(number: int, **others: Any) -> dict[str, Any]:
    return {"origin": "JFK", "departed_at": NOW.isoformat(), "flight_id": str(number)} | others


def counted(address: str) -> int:
    plan = TilePlan("flights", [(VIEW, ["departures"])])
    keys = plan.keys(0, key_layout(CATALOG, VIEW).encode(["JFK"]))
    blobs = RespClient(address).pipeline([("GET", key) for key in keys])
    return plan.decode([blobs], to_micros(NOW))[0].values["departures"][0]


def pending(address: str) -> int:
    return RespClient(address).call("XPENDING", "departed", "windows")[0]


def run(address: str, log: RedisStreamLog, *, push: Any = None) -> Any:
    return consume(
        log, push or pusher(address), clock=ManualClock(NOW), event_id="flight_id", wait=0.01, stop=lambda: True
    )


def test_messages_are_pushed_and_acknowledged(address: str) -> None:
    send(address, departure(1), departure(2))
    done = run(address, log_at(address))
    assert (done.accepted, done.duplicates, done.set_aside) == (2, 0, 0)
    assert (counted(address), pending(address)) == (2, 0)


def test_columns_may_be_fields_of_the_message(address: str) -> None:
    RespClient(address).call(
        "XADD", "departed", "*", "origin", "JFK", "departed_at", NOW.isoformat(), "flight_id", "AA1"
    )
    assert run(address, log_at(address)).accepted == 1
    assert counted(address) == 1


def test_a_message_without_an_event_id_is_named_by_the_log(address: str) -> None:
    send(address, departure(1, flight_id=None), departure(1, flight_id=None))
    assert run(address, log_at(address)).accepted == 2
    assert counted(address) == 2


def test_what_a_dead_consumer_took_is_delivered_again_and_counts_once(address: str) -> None:
    send(address, *(departure(number) for number in range(10)))
    dying = log_at(address, "dying")
    taken = dying.poll(limit=6, wait=0.01)
    pusher(address)([message.row for message in taken[:3]], NOW)
    heir = log_at(address, "heir", claim_after=0.0)
    claimed = run(address, heir)
    rest = run(address, log_at(address, "heir"))
    assert (claimed.accepted, claimed.duplicates) == (3, 3)
    assert rest.accepted == 4
    assert (counted(address), pending(address)) == (10, 0)


def test_a_restarted_consumer_takes_up_what_it_left(address: str) -> None:
    send(address, *(departure(number) for number in range(3)))
    log_at(address).poll(limit=2, wait=0.01)
    restarted = log_at(address)
    assert run(address, restarted).accepted == 2
    assert run(address, restarted).accepted == 1
    assert (counted(address), pending(address)) == (3, 0)


def test_nothing_is_acknowledged_while_the_online_store_is_gone(address: str) -> None:
    send(address, departure(1))
    log = log_at(address)

    def gone(rows: Any, at: datetime) -> Any:
        raise OnlineStoreUnavailableError("Redis does not answer.")

    with pytest.raises(OnlineStoreUnavailableError):
        run(address, log, push=gone)
    assert pending(address) == 1
    assert run(address, log_at(address)).accepted == 1


def test_bad_messages_are_set_aside_with_their_reason_and_stop_nobody(address: str) -> None:
    future = (NOW + HOUR).isoformat()
    send(
        address,
        departure(1),
        b"{broken",
        b"[1]",
        departure(2, departed_at="soon"),
        departure(3, departed_at=future),
        departure(4),
    )
    done = run(address, log_at(address))
    assert (done.accepted, done.set_aside) == (2, 4)
    kept = RespClient(address).call("XRANGE", "departed:set-aside", "-", "+")
    reasons = sorted(entry[1][3].decode() for entry in kept)
    assert reasons[0].startswith("Column 'departed_at' holds a time that cannot be read")
    assert reasons[1].startswith("its body is JSON, but no object")
    assert reasons[2].startswith("its body is not JSON")
    assert reasons[3].startswith("its event time is further ahead")
    assert (counted(address), pending(address)) == (2, 0)


def _consume_until_killed(address: str) -> None:
    consume(log_at(address, f"c{os.getpid()}"), pusher(address), clock=ManualClock(NOW), event_id="flight_id", limit=5)


def test_killing_consumers_in_the_middle_loses_and_doubles_nothing(address: str, tmp_path: Path) -> None:
    send(address, *(departure(number) for number in range(600)))
    spawn = multiprocessing.get_context("spawn")
    for _ in range(3):
        process = spawn.Process(target=_consume_until_killed, args=(address,))
        process.start()
        before, patience = counted(address), time.monotonic() + 20
        while counted(address) < min(before + 50, 600) and time.monotonic() < patience:
            time.sleep(0.005)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    last = log_at(address, "last", claim_after=0.0)
    while pending(address) or counted(address) < 600:
        run(address, last)
    assert counted(address) == 600
