"""What is particular to a Redis Stream as a log of events; what every log must hold is in the contract tests."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tidemill.online.consumer import open_log
from tidemill.online.event_log import Message
from tidemill.online.redis_stream import RedisStreamLog, read_stream_address
from tidemill.online.resp import RespClient


def log_at(address: str, consumer: str = "one", claim_after: float = 60.0) -> Any:
    log = open_log(f"{address}?stream=departed", group="windows", consumer=consumer, claim_after=claim_after)
    assert isinstance(log, RedisStreamLog)
    return log


def send(address: str, *numbers: int) -> list[str]:
    client = RespClient(address)
    return [client.call("XADD", "departed", "*", "json", orjson.dumps({"n": n})).decode() for n in numbers]


def rows(messages: list[Message]) -> list[Any]:
    return [message.row and message.row["n"] for message in messages]


def test_columns_may_be_fields_of_the_message(address: str) -> None:
    RespClient(address).call(
        "XADD", "departed", "*", "origin", "JFK", "delay", "12", "late", "true", "gate", b"\xff", "note", "[1]"
    )
    (message,) = log_at(address).poll(limit=1, wait=0.01)
    assert message.row == {"origin": "JFK", "delay": 12, "late": True, "gate": "\ufffd", "note": "[1]"}
    assert orjson.loads(message.body) == message.row


def test_a_restarted_consumer_takes_up_what_it_left_without_waiting(address: str) -> None:
    send(address, 1, 2, 3)
    log_at(address).poll(limit=2, wait=0.01)
    restarted = log_at(address)
    assert rows(restarted.poll(limit=2, wait=0.01)) == [1, 2]
    assert rows(restarted.poll(limit=2, wait=0.01)) == [3]


def test_another_consumer_takes_over_only_after_the_silence_agreed(address: str) -> None:
    send(address, 1)
    log_at(address, "dead").poll(limit=1, wait=0.01)
    assert rows(log_at(address, "patient").poll(limit=1, wait=0.01)) == []
    assert rows(log_at(address, "eager", claim_after=0.0).poll(limit=1, wait=0.01)) == [1]


def test_what_was_trimmed_before_it_was_read_again_blocks_nobody(address: str) -> None:
    names = send(address, *range(6))
    log_at(address).poll(limit=5, wait=0.01)
    RespClient(address).call("XDEL", "departed", *names[:3])
    restarted = log_at(address)
    assert rows(restarted.poll(limit=2, wait=0.01)) == [3]
    assert rows(restarted.poll(limit=2, wait=0.01)) == [4]
    assert rows(restarted.poll(limit=2, wait=0.01)) == [5]
    assert restarted.lag() == 3


def test_what_was_trimmed_while_its_consumer_was_dead_is_not_pending_for_ever(address: str) -> None:
    names = send(address, *range(6))
    log_at(address, "dead").poll(limit=5, wait=0.01)
    RespClient(address).call("XDEL", "departed", *names[:3])
    heir = log_at(address, "heir", claim_after=0.0)
    found = []
    for _ in range(4):
        messages = heir.poll(limit=10, wait=0.01)
        found += rows(messages)
        heir.acknowledge(messages)
    assert found == [3, 4, 5]
    assert heir.lag() == 0


def test_what_a_dead_consumer_left_is_found_behind_what_the_living_have_in_hand(address: str) -> None:
    names = send(address, *range(60))
    log_at(address, "living").poll(limit=40, wait=0.01)
    log_at(address, "dead").poll(limit=20, wait=0.01)
    client = RespClient(address)
    long_ago = client.call("TIME")[0].decode() + "000"
    for name in names[40:]:
        client.call("XCLAIM", "departed", "windows", "dead", 0, name, "TIME", int(long_ago) - 3_600_000, "JUSTID")
    heir, found = log_at(address, "heir", claim_after=600.0), []
    for _ in range(40):
        messages = heir.poll(limit=1, wait=0.001)
        found += rows(messages)
        heir.acknowledge(messages)
    assert sorted(found) == list(range(40, 60))


def test_a_stream_that_was_deleted_is_read_anew(address: str) -> None:
    log = log_at(address)
    send(address, 1)
    log.acknowledge(log.poll(limit=1, wait=0.01))
    RespClient(address).call("DEL", "departed")
    assert rows(log.poll(limit=1, wait=0.01)) == []
    send(address, 2)
    assert rows(log.poll(limit=1, wait=0.01)) == [2]


def test_the_lag_is_counted_up_to_a_limit_where_redis_does_not_know_it(address: str) -> None:
    client = RespClient(address)
    client.pipeline([("XADD", "departed", "*", "json", "{}") for _ in range(1_200)])
    assert log_at(address).lag() in (1_000, 1_200)


def test_messages_set_aside_do_not_fill_redis(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.online.redis_stream._SET_ASIDE", 100)
    log = log_at(address)
    for number in range(500):
        log.set_aside(Message(name=f"{number}-0", row=None, body=b"{"), "broken")
    assert RespClient(address).call("XLEN", "departed:set-aside") < 250


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("redis://localhost:6379/0?stream=a", "redis://localhost:6379/0"),
        ("unix:///run/redis.sock?db=1&stream=a", "unix:///run/redis.sock?db=1"),
        ("rediss://u:p@host:6380?stream=a&ssl_cert_reqs=none", "rediss://u:p@host:6380?ssl_cert_reqs=none"),
    ],
)
def test_the_stream_is_named_in_the_address(address: str, server: str) -> None:
    assert read_stream_address(address) == (server, "a")
