from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import pytest
import redis
from stalling import stalled
from waiting import PATIENCE, wait_until

from tidemill.errors import ConfigurationError, OnlineStoreUnavailableError
from tidemill.online.redis_refusals import WrongKindError
from tidemill.online.resp import RedisReplyError, RespClient, Script, pack_command
from tidemill.online.resp_async import AsyncRespClient

Answer = TypeVar("Answer")


@pytest.fixture
def client(address: str):
    client = RespClient(address)
    yield client
    client.close()


def test_a_pipeline_answers_in_order(client: RespClient):
    assert client.pipeline([("SET", "a", 1), ("GET", "a"), ("GET", "b")]) == [b"OK", b"1", None]


class InTwoParts:
    def __init__(self, commands: list[bytes]) -> None:
        self.commands = commands
        self.told: list[int] = []

    def rest(self) -> tuple[bytes, int]:
        return b"".join(self.commands), len(self.commands)

    def take(self, replies: list[bytes], /) -> None:
        self.told.append(len(replies))


def test_what_is_sent_in_two_parts_is_answered_in_order(client: RespClient):
    commands = [pack_command("ECHO", str(number) * 200) for number in range(500)]
    for _ in range(3):
        parts = InTwoParts(commands[200:])
        found = client.execute(b"".join(commands[:200]), 200, listener=parts)
        assert found == [str(number).encode() * 200 for number in range(500)]
        assert all(0 <= number < 500 for number in parts.told)


def test_both_parts_are_sent_again_over_a_new_connection(own_server):
    client = RespClient(own_server.ensure_started())
    assert client.call("PING") == b"PONG"
    own_server.stop()
    own_server.ensure_started()
    parts = InTwoParts([pack_command("ECHO", "b")] * 100)
    assert client.execute(pack_command("ECHO", "a"), 1, listener=parts) == [b"a"] + [b"b"] * 100
    client.close()


def test_a_refused_command_is_an_error_and_the_connection_stays_usable(client: RespClient):
    with pytest.raises(RedisReplyError, match="unknown command"):
        client.pipeline([("SET", "a", 1), ("NONSENSE",)])
    assert client.call("GET", "a") == b"1"


def test_threads_do_not_mix_up_their_replies(client: RespClient):
    def ask(number: int) -> bool:
        client.call("SET", f"k{number}", number)
        return client.call("GET", f"k{number}") == str(number).encode()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


def test_a_script_is_loaded_again_after_redis_forgot_it(client: RespClient):
    script = Script("return ARGV[1]")
    assert script.run(client, [], ["x"]) == b"x"
    client.call("SCRIPT", "FLUSH")
    assert script.run(client, [], ["y"]) == b"y"


def test_replies_of_a_stream_come_back_complete(client: RespClient):
    with client.stream() as stream:
        for number in range(2_000):
            stream.send(pack_command("SET", f"k{number}", b"x" * 100), 1)
        assert stream.finish() == [b"OK"] * 2_000


def test_redis_gone_is_told_and_redis_back_is_used(own_server):
    client = RespClient(own_server.ensure_started())
    assert client.call("PING") == b"PONG"
    own_server.stop()
    for _ in range(2):
        with pytest.raises(OnlineStoreUnavailableError, match="does not answer"):
            client.call("PING")
    own_server.ensure_started()
    assert client.call("PING") == b"PONG"
    client.close()


def test_a_restart_between_two_reads_is_not_noticed(own_server):
    client = RespClient(own_server.ensure_started())
    assert client.call("PING") == b"PONG"
    own_server.stop()
    own_server.ensure_started()
    assert client.call("PING") == b"PONG"
    client.close()


def test_small_reads_go_on_after_a_restart_and_report_an_absence(own_server):
    client = RespClient(own_server.ensure_started())
    for _ in range(2):  # the second on the connection of the first
        assert client.ask(pack_command("ECHO", "a"), 1) == (False, [b"a"])
    own_server.stop()
    own_server.ensure_started()
    assert client.ask(pack_command("ECHO", "a"), 1) == (False, [b"a"])
    own_server.stop()
    for _ in range(2):
        with pytest.raises(OnlineStoreUnavailableError, match="does not answer"):
            client.ask(pack_command("ECHO", "a"), 1)
    own_server.ensure_started()
    assert client.ask(pack_command("ECHO", "a"), 1) == (False, [b"a"])
    client.close()


def test_a_small_read_that_is_refused_leaves_its_connection_usable(client: RespClient):
    client.pipeline([("SET", "a", 1), ("HSET", "h", "f", 1)])
    with pytest.raises(WrongKindError) as refused:
        client.ask(pack_command("HGET", "a", "f") + pack_command("HGET", "h", "f"), 2)
    assert refused.value.replies[1] == b"1"
    assert client.ask(pack_command("GET", "a"), 1) == (False, [b"1"])


def first_answer(ask: Callable[[], Answer]) -> Answer:
    """What a hurried client is told in the end: this machine may be slower than the client is patient."""
    answers: list[Answer] = []

    def answered() -> bool:
        with suppress(OnlineStoreUnavailableError):
            answers.append(ask())
        return bool(answers)

    wait_until(answered)
    return answers[0]


def test_a_slow_redis_is_given_up_on_by_small_reads_too(own_server):
    patient = RespClient(own_server.ensure_started())
    patient.call("SET", "late", 1)
    client = RespClient(own_server.url, timeout=0.5)
    with stalled(own_server.pid), pytest.raises(OnlineStoreUnavailableError, match=r"within 0\.5 s"):
        client.ask(pack_command("GET", "late"), 1)
    assert first_answer(lambda: client.ask(pack_command("GET", "none"), 1)) == (False, [None])
    for some in (client, patient):
        some.close()


def test_a_command_that_must_not_happen_twice_fails_on_a_dead_connection(own_server):
    client = RespClient(own_server.ensure_started())
    client.call("INCR", "n", retry=False)
    own_server.stop()
    own_server.ensure_started()
    with pytest.raises(OnlineStoreUnavailableError):
        client.call("INCR", "n", retry=False)
    assert client.call("INCR", "n", retry=False) == 2
    client.close()


def test_a_slow_redis_is_given_up_on_and_its_late_answers_are_nobody_s(own_server):
    patient = RespClient(own_server.ensure_started())
    patient.call("SET", "late", 1)
    client = RespClient(own_server.url, timeout=0.5)
    with stalled(own_server.pid), pytest.raises(OnlineStoreUnavailableError, match=r"within 0\.5 s"):
        client.call("GET", "late")
    assert first_answer(lambda: client.call("GET", "a")) is None
    for some in (client, patient):
        some.close()


def test_a_full_redis_says_what_to_do(own_server):
    client = RespClient(own_server.ensure_started())
    client.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(OnlineStoreUnavailableError, match="redis_maxmemory"):
        client.call("SET", "a", 1)
    client.close()


def test_nonsense_is_not_an_address():
    with pytest.raises(ConfigurationError, match="not the address of a Redis"):
        RespClient("http://localhost")


def test_concurrent_requests_share_one_connection_and_get_their_own_replies(address: str):
    async def run() -> None:
        client = AsyncRespClient(address)
        await client.execute(b"".join(pack_command("SET", f"k{n}", n) for n in range(100)), 100)
        found = await asyncio.gather(*(client.execute(pack_command("GET", f"k{n}"), 1) for n in range(100)))
        assert found == [[str(n).encode()] for n in range(100)]
        listed = (await client.execute(pack_command("CLIENT", "LIST"), 1))[0]
        await client.close()
        assert listed.count(b"cmd=") == 1

    with redis.Redis.from_url(address) as other:
        other.client_kill_filter(skipme=True, _type="normal")
        other.connection_pool.disconnect()
    asyncio.run(run())


def test_asyncio_survives_a_restart_and_reports_an_absence(own_server):
    async def run() -> None:
        client = AsyncRespClient(own_server.ensure_started(), timeout=PATIENCE)
        assert await client.execute(pack_command("PING"), 1) == [b"PONG"]
        own_server.stop()
        with pytest.raises(OnlineStoreUnavailableError):
            await client.execute(pack_command("PING"), 1)
        own_server.ensure_started()
        assert await client.execute(pack_command("PING"), 1) == [b"PONG"]
        hurried = AsyncRespClient(own_server.url, timeout=0.5)
        with stalled(own_server.pid), pytest.raises(OnlineStoreUnavailableError, match="within"):
            await hurried.execute(pack_command("GET", "a"), 1)
        for some in (client, hurried):
            await some.close()

    asyncio.run(run())
