"""A load gives way while others read, and to nobody else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import hiredis
import polars as pl
import pytest
import redis
from store_parts import T0, catalog, feature, view
from waiting import PATIENCE

from tidemill.definitions import ValueType
from tidemill.online import writer
from tidemill.online.courtesy import Courtesy, Watch, nothing_read
from tidemill.online.resp import RespClient, pack_command
from tidemill.online.store import OnlineStore

MANY = 6_000
LOOK = 1 / 16  # a little longer than the interval, and no rounding
VIEW = view("v", feature("x"), feature("n", ValueType.INT64))


@dataclass
class Clock:
    """Stands still until it is told; or goes on by `step` whenever it is looked at."""

    now: float = 0.0
    step: float = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@dataclass
class Server:
    """Says how often it has been read from."""

    hmget: int = 0
    get: int = 0
    ping: int = 0

    def answer(self) -> bytes:
        lines = [f"cmdstat_{name}:calls={calls},usec=9,usec_per_call=1.00" for name, calls in vars(self).items()]
        return "\r\n".join(["# Commandstats", *lines, "cmdstat_client|info:calls=77,usec=1", ""]).encode()


@dataclass
class Load:
    """A load that looks around every interval, between its own commands."""

    clock: Clock
    server: Server
    watch: Watch

    def looks(self, *, others: int = 0, own: int = 0, pings: int = 0) -> bool:
        """Whether it gives way after an interval in which so much was done."""
        self.server.hmget += others + own
        self.server.ping += pings
        self.watch.count([own])
        self.clock.now += LOOK
        assert self.watch.asks()
        self.watch.hear(self.server.answer())
        return self.watch.gives_way


@pytest.fixture
def load() -> Load:
    clock = Clock()
    made = Load(clock, Server(hmget=1_000), Watch(Courtesy(clock), lambda reply: reply))
    made.looks()
    return made


def test_until_it_knows_a_load_gives_way_and_one_look_without_readers_ends_that(load: Load):
    assert load.watch.gives_way
    assert not load.looks()


def test_its_own_reads_and_the_pings_of_others_are_not_readers(load: Load):
    assert not load.looks(own=500, pings=100)
    assert not load.looks(own=10_000, others=2)


def test_a_load_gives_way_as_soon_as_others_read_and_goes_on_after_two_looks_without_them(load: Load):
    load.looks()
    assert load.looks(own=500, others=4)
    assert load.looks(others=100)
    assert [load.looks(own=9), load.looks(own=9)] == [True, False]


def test_slow_readers_who_pass_by_one_look_are_still_there(load: Load):
    found = [load.looks(others=reads) for reads in (0, 4, 1, 4, 0, 4, 0, 0)]
    assert found == [False, True, True, True, True, True, True, False]


def test_every_way_of_reading_counts(load: Load):
    load.looks()
    load.server.get += 50
    assert load.looks()


def test_redis_is_asked_once_in_an_interval():
    clock = Clock()
    watch = Watch(Courtesy(clock), nothing_read)
    assert [watch.asks(), watch.asks()] == [True, False]
    clock.now += LOOK
    assert watch.asks()


def test_what_one_load_found_out_holds_for_the_next():
    clock = Clock()
    courtesy, server = Courtesy(clock), Server()
    first = Load(clock, server, Watch(courtesy, nothing_read))
    first.looks()
    first.looks()
    second = Load(clock, server, Watch(courtesy, nothing_read))
    assert not second.looks()


def test_a_redis_that_counts_anew_or_counts_nothing_is_read_by_nobody(load: Load):
    load.server.hmget = 0
    assert not load.looks()
    load.clock.now += LOOK
    assert load.watch.asks()
    load.watch.hear(b"")
    assert not load.watch.gives_way


def test_a_redis_that_does_not_tell_is_loaded_at_full_speed_and_not_asked_again(load: Load):
    load.looks(others=100)
    load.watch.hear(hiredis.ReplyError("NOPERM this user has no permissions to run the 'info' command"))
    load.clock.now += LOOK
    assert (load.watch.gives_way, load.watch.asks()) == (False, False)


def test_turns_grow_while_they_are_mostly_waiting_and_shrink_again():
    watch = Watch(Courtesy(Clock()), nothing_read)
    smallest, sizes = watch.turn, []
    for _ in range(20):
        watch.took(watch.turn, 0.05)
        sizes.append(watch.turn)
    assert sizes == sorted(sizes)
    assert sizes[0] == 2 * smallest
    assert sizes[-1] == sizes[-2] == 64_000
    for _ in range(20):
        watch.took(watch.turn, 0.0005)
    assert watch.turn == smallest


def test_a_redis_with_a_machine_of_its_own_is_not_given_way():
    class Elsewhere(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return ("10.0.0.7", 6_379)

        def getsockname(self) -> tuple[str, int]:
            return ("10.0.0.8", 40_000)

    with Elsewhere() as connection, socket.create_server(("127.0.0.1", 0)) as server:
        assert Courtesy().watch(connection, nothing_read) is None
        with socket.create_connection(server.getsockname()) as near:
            assert Courtesy().watch(near, nothing_read) is not None


class Noting(Courtesy):
    """Time passes by an interval whenever it is looked at, so that every turn looks around; notes what it saw."""

    def __init__(self) -> None:
        super().__init__(Clock(step=LOOK))
        self.reads: list[float] = []

    def note(self, reads: float) -> None:
        self.reads.append(reads * LOOK)
        super().note(reads)


@pytest.fixture
def store(make: Callable[..., OnlineStore]) -> OnlineStore:
    found = make(catalog(VIEW))
    found.resp.courtesy = Noting()
    return found


def rows(hour: int, *, value: float = 0.5, first: int = 0, many: int = MANY) -> pl.DataFrame:
    at = pl.Series([T0 + timedelta(hours=hour)] * many, dtype=pl.Datetime("us", "UTC"))
    keys = [f"k{number}" for number in range(first, first + many)]
    columns: dict[str, Any] = {"origin": keys, "x": [value] * many, "n": range(many)}
    return pl.DataFrame(columns).with_columns(at.alias("__event_time"), at.alias("__known_time"))


def learned(hour: int) -> datetime:
    return T0 + timedelta(hours=hour)


def test_a_load_by_itself_sees_nobody_whatever_its_rows_meet(store: OnlineStore):
    mixed = pl.concat([rows(9, many=3_000), rows(1, value=0.7, first=3_000, many=3_000)])
    loads = [rows(1), rows(2), rows(2), rows(2, value=0.6), rows(1), mixed]
    results = [store.write("v", frame, learned=learned(10 + number)) for number, frame in enumerate(loads)]
    counted = [(result.written, result.unchanged, result.skipped_older) for result in results]
    assert counted == [(MANY, 0, 0), (MANY, 0, 0), (0, MANY, 0), (MANY, 0, 0), (0, 0, MANY), (3_000, 0, 3_000)]
    courtesy = store.resp.courtesy
    assert isinstance(courtesy, Noting)
    assert len(courtesy.reads) > 20
    assert set(courtesy.reads) == {0.0}
    assert not courtesy.gives_way


def test_a_load_beside_a_reader_gives_way_and_writes_the_same(store: OnlineStore, reading: int):
    store.write("v", rows(1), learned=learned(1))
    found = store.write("v", rows(2, value=0.6), learned=learned(2))
    assert (found.written, found.unchanged, found.skipped_older) == (MANY, 0, 0)
    courtesy = store.resp.courtesy
    assert isinstance(courtesy, Noting)
    assert sum(courtesy.reads) >= reading
    read = store.read_features(["v:x", "v:n"], [{"origin": f"k{number}"} for number in range(MANY)]).to_dict()
    assert (set(read["x"]), read["n"]) == ({0.6}, list(range(MANY)))


@pytest.fixture
def reading(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Somebody reads 10 times for every part of a load; at least so often in all."""
    before = writer.join_rows
    monkeypatch.setattr(writer, "_ROWS_ENCODED", 500)

    def joined(*arguments: Any) -> Any:
        client.pipeline([("HGET", "somebody", "else")] * 10)
        return before(*arguments)

    client = RespClient(address)
    monkeypatch.setattr(writer, "join_rows", joined)
    yield 10
    client.close()


def test_a_stream_gives_way_until_readers_have_gone(address: str):
    client, clock = RespClient(address), Clock()
    client.courtesy = Courtesy(clock)
    with client.stream(reads=nothing_read) as stream, ThreadPoolExecutor(1) as pool:

        def sends(*, others: int) -> bool:
            client.pipeline([("GET", "a")] * others)
            clock.now += LOOK
            pool.submit(stream.send, pack_command("SET", "a", 1), 1).result(PATIENCE)
            return client.courtesy.gives_way

        assert [sends(others=reads) for reads in (0, 9, 0, 0)] == [True, True, True, False]
        assert len(stream.finish()) == 4
    client.close()


def test_a_user_who_may_not_ask_who_reads_loads_all_the_same(own_server, tmp_path):
    url = own_server.ensure_started()
    with redis.Redis.from_url(url) as admin:
        admin.acl_setuser("loader", enabled=True, passwords=["+secret"], commands=["+@all", "-info"], keys=["*"])
    client = RespClient(url.replace("unix://", "unix://loader:secret@"))
    with client.stream(reads=nothing_read) as stream:
        for number in range(100):
            stream.send(pack_command("SET", f"k{number}", 1), 1)
        assert stream.finish() == [b"OK"] * 100
    assert not client.courtesy.gives_way
    assert not client.courtesy.is_told
    client.close()
