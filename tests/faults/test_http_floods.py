"""Bodies without end, heads without end, connections without requests: refused early, in bounded memory, while others
are answered."""

from __future__ import annotations

import asyncio
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil
import pytest
from own_redis import closed_with_redis
from small_live import FEATURES, PUSH, ROW, LiveServer, live, open_with_redis
from waiting import PATIENCE, wait_until

from tidemill.project import Project

MEGABYTE = 2**20
SILENT = 10_000
PATHS = [FEATURES, "/v1/features", PUSH, "/push", "/get-online-features"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with closed_with_redis(open_with_redis(tmp_path_factory.mktemp("project"), max_body_bytes=MEGABYTE)) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[LiveServer]:
    with live(project) as server:
        assert answers(server)
        yield server


@pytest.fixture(scope="module")
def hurried(project: Project) -> Iterator[LiveServer]:
    """One that gives a request half a second."""
    with live(project, environment={"TIDEMILL_REQUEST_TIMEOUT": "0.5"}) as server:
        yield server


@pytest.fixture
def many() -> Iterator[int]:
    """Ten thousand connections, or as many as this machine lets a process have files for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield SILENT if hard == resource.RLIM_INFINITY else min(SILENT, hard - 1_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def seconds_to_connect(server: LiveServer, count: int) -> float:
    """How long this machine takes to open so many connections, by what it takes for some."""
    some = 300
    began = time.monotonic()
    lines = [connect(server) for _ in range(some)]
    seconds = time.monotonic() - began
    for line in lines:
        line.close()
    return seconds * count / some


def connect(server: LiveServer) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", server.port))
    line.settimeout(PATIENCE)
    return line


def head(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", *fields, "", ""]).encode()


def read_until(line: socket.socket, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        part = line.recv(65_536)
        assert part, f"the connection was closed after {found!r}"
        found += part
    return found


def answers(server: LiveServer) -> bool:
    return httpx.post(server.url + FEATURES, json={"rows": [ROW]}, timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_declared_length_beyond_the_limit_is_refused_before_the_body_is_sent(server: LiveServer, path: str) -> None:
    with connect(server) as line:
        line.sendall(head(path, "content-length: 100000000"))
        answer = read_until(line, b"are taken")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"at most 1,048,576 are taken" in answer


@pytest.mark.parametrize("path", [FEATURES, PUSH])
def test_a_body_that_is_announced_and_never_comes_is_408(hurried: LiveServer, path: str) -> None:
    with connect(hurried) as line:
        line.sendall(head(path, "content-length: 1000"))
        assert line.recv(65_536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("path", PATHS)
def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit(server: LiveServer, path: str) -> None:
    with connect(server) as line:
        line.sendall(head(path, "transfer-encoding: chunked"))
        for _ in range(17):  # a little more than the limit, and no end
            line.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert line.recv(65_536).startswith(b"HTTP/1.1 413")


def test_whoever_asks_before_sending_is_refused_without_sending(server: LiveServer) -> None:
    with connect(server) as line:
        line.sendall(head(FEATURES, "content-length: 100000000", "expect: 100-continue"))
        assert b"HTTP/1.1 413" in read_until(line, b"\r\n\r\n{")


def test_ten_bodies_of_a_hundred_megabytes_each_see_their_413_and_take_no_memory(server: LiveServer) -> None:
    before, most = server.memory, [0]
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.02):
            most[0] = max(most[0], server.memory)

    async def send(client: httpx.AsyncClient, *, chunked: bool) -> int:
        part = b"x" * MEGABYTE

        async def parts():
            for _ in range(100):
                yield part

        size = {} if chunked else {"content-length": str(100 * MEGABYTE)}
        return (await client.post(server.url + FEATURES, content=parts(), headers=size)).status_code

    async def send_all() -> list[int]:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            return await asyncio.gather(*(send(client, chunked=number % 2 == 0) for number in range(10)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    statuses = asyncio.run(send_all())
    watching.set()
    watcher.join()
    assert statuses == [413] * 10
    assert most[0] - before < 64 * MEGABYTE
    assert answers(server)


def test_bodies_that_are_each_small_enough_are_too_much_together(server: LiveServer) -> None:
    """Seventeen bodies, each a little short of its limit and its end; those that found room are read to theirs."""
    lines = [connect(server) for _ in range(17)]
    for line in lines:
        line.sendall(head(FEATURES, f"content-length: {MEGABYTE}") + b"x" * (MEGABYTE - 1_000))
    [(refused, _)] = selected(lines)
    assert refused.recv(65_536).startswith(b"HTTP/1.1 429 Too Many Requests")
    refused.close()
    lines.remove(refused)
    assert selected(lines, seconds=0) == []
    for line in lines:
        line.sendall(b"x" * 1_000)
        assert line.recv(65_536).startswith(b"HTTP/1.1 400")
        line.close()
    assert answers(server)


def selected(lines: list[socket.socket], *, seconds: float = PATIENCE) -> list[tuple[socket.socket, int]]:
    """The lines on which there is an answer, once there is one."""
    with selectors.DefaultSelector() as selector:
        for line in lines:
            selector.register(line, selectors.EVENT_READ)
        return [(key.fileobj, events) for key, events in selector.select(seconds)]  # type: ignore[misc]


@pytest.mark.parametrize("field", [b"x-endless: ", b""], ids=["header", "path"])
def test_a_head_without_end_is_refused_and_takes_no_memory(server: LiveServer, field: bytes) -> None:
    before = server.memory
    with connect(server) as line:
        line.sendall(b"POST /v1/features/delay_v1 HTTP/1.1\r\nhost: x\r\n" + field if field else b"GET /")
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken, as the kernel sees fit
            line.sendall(b"x" * 100 * MEGABYTE)
    assert server.memory - before < 32 * MEGABYTE
    assert answers(server)


def test_a_head_that_is_too_long_is_431(server: LiveServer) -> None:
    with connect(server) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        with suppress(OSError):  # the server may have closed the line before the last of it
            for number in range(100):
                line.sendall(b"x-%d: %s\r\n" % (number, b"y" * 700))
        answer = read_until(line, b"}")
    assert answer.startswith(b"HTTP/1.1 431")
    assert b"application/problem+json" in answer


def test_many_requests_in_one_packet_are_all_answered(server: LiveServer) -> None:
    """What is counted against a head is that head alone."""
    one = head(FEATURES, "content-length: 2", f"x-filler: {'y' * 3_000}") + b"{}"
    with connect(server) as line:
        line.sendall(one * 100)
        found = b""
        while found.count(b"HTTP/1.1 400") < 100:
            found += read_until(line, b"HTTP/1.1 400")


def test_ten_thousand_silent_connections_are_closed_in_time_while_others_are_answered(
    project: Project, server: LiveServer, many: int
) -> None:
    async def silent(port: int) -> int:
        """Opens a connection, sends nothing, and waits to be closed: answers with what it received."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return len(await reader.read())
        except ConnectionError:
            return 0
        finally:
            writer.close()

    async def flood(port: int) -> list[int]:
        return await asyncio.gather(*(silent(port) for _ in range(many)))

    def ask_on(server: LiveServer) -> None:
        while not over.wait(0.05):
            assert answers(server)
            memory.append(server.memory)
            files.append(psutil.Process(server.process.pid).num_fds())

    over, memory, files = threading.Event(), list[int](), list[int]()
    patience = max(5.0, 8 * seconds_to_connect(server, many))  # for all of them to be open at one time, or nearly so
    with live(project, head_timeout=patience) as flooded, ThreadPoolExecutor(1) as thread:
        before = flooded.memory
        asking = thread.submit(ask_on, flooded)
        try:
            received = asyncio.run(asyncio.wait_for(flood(flooded.port), patience + 10 * PATIENCE))
        finally:
            over.set()
        asking.result()
    assert received == [0] * many
    assert max(files) > many // 2
    assert len(files) > 10  # were answered meanwhile
    assert max(memory) - before < 200 * MEGABYTE


def test_with_no_file_left_a_newcomer_takes_the_place_of_the_longest_idle(project: Project) -> None:
    with live(project, head_timeout=10 * PATIENCE, files=600) as server:
        silent = [connect(server) for _ in range(800)]
        assert answers(server)
        assert silent[0].recv(1) == b""
        silent[-1].sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert silent[-1].recv(1_000).startswith(b"HTTP/1.1 200")
        for line in silent:
            line.close()
        wait_until(lambda: answers(server))
