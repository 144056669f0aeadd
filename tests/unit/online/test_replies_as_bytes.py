"""Large reads over asyncio are shown the bytes of their own replies, all of them and nothing else, or the replies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import redis
from store_parts import WEATHER, catalog, feature, rows, view

from tidemill.definitions import ValueType
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.keys import hash_field
from tidemill.online.redis_refusals import WrongKindError
from tidemill.online.resp import pack_command
from tidemill.online.resp_async import AsyncRespClient
from tidemill.online.resp_protocol import ReplyEnds, RespProtocol
from tidemill.online.result import OnlineResult

ROW = b"*2\r\n$1\r\na\r\n$-1\r\n"
PARSED = [b"a", None]
Ends = list[bytes]


def exchange(asked: list[tuple[int, bool]], sent: Callable[[Ends], bytes], sizes: list[int]) -> list[Any]:
    """What requests of so many replies, as bytes or not, are answered when Redis sends that in pieces of `sizes`."""

    async def run() -> list[Any]:
        ends = ReplyEnds()
        protocol = RespProtocol(asyncio.get_running_loop(), 60.0, ends)
        first = int(ends.next()[-18:])
        due = [protocol.request(b"", replies, as_bytes) for replies, as_bytes in asked]
        of_each = [ends.next()[:-18] + b"%016d\r\n" % (first + 1 + place) for place in range(len(asked))]
        data, draw = sent(of_each), random.Random(1)
        while data:
            size = draw.choice(sizes)
            protocol.data_received(data[:size])
            data = data[size:]
        found = [future.result() for future in due]
        protocol.close()
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("sizes", [[1], [1, 2, 7], [20, 50], [10_000]])
def test_bytes_and_replies_go_to_whom_they_belong_however_they_come(sizes: list[int]):
    first, number, *others, okay, refused, last = exchange(
        [(3, True), (1, False), (2, True), (2, True), (1, False), (1, False), (1, True)],
        lambda ends: b"".join(
            (3 * ROW, ends[0], b":7\r\n", 2 * ROW, ends[1], 2 * ROW, ends[2], b"+OK\r\n-ERR no\r\n", ROW, ends[3])
        ),
        sizes,
    )
    assert (first, number, okay, str(refused[0])) == (3 * ROW, [7], [b"OK"], "ERR no")
    for some, replies in zip([*others, last], (2, 2, 1), strict=True):
        assert some in (replies * ROW, replies * [PARSED])


@pytest.mark.parametrize("sizes", [[1], [1, 2, 7], [20, 50], [10_000]])
def test_an_end_that_is_refused_leaves_its_replies_to_the_parser(sizes: list[int]):
    found = exchange(
        [(2, True), (1, False), (1, True), (1, True)],
        lambda ends: 2 * ROW + b"-BUSY running a script\r\n:7\r\n" + ROW + ends[1] + ROW + ends[2],
        sizes,
    )
    assert found[:2] == [[PARSED, PARSED], [7]]
    assert all(some in (ROW, [PARSED]) for some in found[2:])


@pytest.mark.parametrize("sizes", [[1], [20, 50], [10_000]])
def test_a_refusal_among_the_replies_is_one_of_them(sizes: list[int]):
    refusal = b"-WRONGTYPE no hash\r\n"
    (found,) = exchange([(2, True)], lambda ends: refusal + ROW + ends[0], sizes)
    assert found == refusal + ROW or (str(found[0]), found[1:]) == ("WRONGTYPE no hash", [PARSED])


def asyncio_client(address: str, use: Callable[[AsyncRespClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = AsyncRespClient(address)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_glance_sees_the_bytes_of_all_replies_and_of_nothing_else(address: str):
    async def use(client: AsyncRespClient) -> None:
        await client.execute(b"".join(pack_command("SET", f"k{n}", n) for n in range(100)), 100)
        shown: dict[int, bytes] = {}
        gets = [b"".join(pack_command("GET", f"k{n}") for n in range(first, first + 10)) for first in range(0, 100, 10)]
        asked = [client.ask(packed, 10, partial(_keep, shown, number)) for number, packed in enumerate(gets)]
        others = [client.execute(packed, 10) for packed in gets]
        found = await asyncio.gather(*(one for pair in zip(asked, others, strict=True) for one in pair))
        for number in range(10):
            replies = [b"%d" % (number * 10 + place) for place in range(10)]
            assert found[2 * number] in ((True, [number]), (False, replies))
            assert found[2 * number + 1] == replies
            if number in shown:
                assert shown[number] == b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in replies)
        assert 0 in shown

    asyncio_client(address, use)


def _keep(shown: dict[int, bytes], number: int, data: bytes) -> list[Any]:
    shown[number] = data
    return [number]


def test_what_a_glance_does_not_understand_is_parsed(address: str):
    async def use(client: AsyncRespClient) -> None:
        packed = pack_command("SET", "a", 1) + pack_command("GET", "a")
        assert await client.ask(packed, 2, lambda _: None) == (False, [b"OK", b"1"])
        with pytest.raises(WrongKindError):
            await client.ask(packed + pack_command("HGETALL", "a"), 3, lambda _: None)

    asyncio_client(address, use)


def test_a_user_who_may_not_ask_for_an_end_is_shown_nothing_and_answered(own_server: EmbeddedRedis):
    own_server.ensure_started()
    with redis.Redis(unix_socket_path=str(own_server.socket)) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-echo")

    async def use(client: AsyncRespClient) -> None:
        packed = pack_command("SET", "a", 1) + pack_command("GET", "a")
        shown: list[bytes] = []
        assert await client.ask(packed, 2, lambda data: shown.append(data)) == (False, [b"OK", b"1"])
        assert shown == []

    asyncio_client(own_server.url, use)


@pytest.mark.parametrize("foreign", [None, b"", b"\x12\x03abc", "a list"])
def test_concurrent_reads_of_many_rows_are_what_reads_of_one_are(make, address: str, foreign: Any):
    route = view("route", feature("distance", ValueType.FLOAT), entities=("plane", "origin"))
    store = make(catalog(WEATHER, view("names", feature("text", ValueType.STRING)), route))
    keys = [f"A{number}" for number in range(120)]
    store.write("weather", rows(*({"origin": key, "temp": n / 2, "wind": n - 60} for n, key in enumerate(keys))))
    store.write("names", rows(*({"origin": key, "text": f"é {n}"} for n, key in enumerate(keys))))
    store.write("route", rows(*({"origin": key, "tail": n, "distance": n / 4} for n, key in enumerate(keys))))
    with redis.Redis.from_url(address) as other:
        _put_something_foreign(other, foreign)
    parts = [keys[first : first + size] for first, size in ((0, 120), (3, 100), (50, 1), (60, 60), (0, 41), (7, 5))]
    asked = [[{"origin": key, "tail": int(key[1:])} for key in part] for part in parts]
    features = ["weather:temp", "weather:wind", "names:text"]

    async def run() -> list[Any]:
        reads = [store.aread_features(features, some) for some in asked] + [store.aread("all", some) for some in asked]
        found = await asyncio.gather(*reads)
        await store.aclose()
        return found

    found = asyncio.run(run())
    for some, answer in zip(asked, found[: len(asked)], strict=True):
        assert_same(answer, store.read_features(features, some))
    for some, answer in zip(asked, found[len(asked) :], strict=True):
        assert_same(answer, store.read("all", some))


def _put_something_foreign(other: Any, foreign: Any) -> None:
    key = max(found for found in other.scan_iter() if b"A17" in found and b"tail" not in found)
    if foreign == "a list":
        other.delete(key)
        other.rpush(key, "x")
    elif foreign is not None:
        other.hset(key, hash_field("weather", "wind"), foreign)


def assert_same(found: OnlineResult, expected: OnlineResult) -> None:
    assert found.values == expected.values
    assert found.statuses == expected.statuses
    assert found.event_times == expected.event_times
    assert found.stale == expected.stale
    assert found.all_present == expected.all_present
