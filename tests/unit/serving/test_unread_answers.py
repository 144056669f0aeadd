"""Who takes nothing of an answer is let go; who takes it slowly is waited for."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from small_project import NOW, catalog, open_small, served
from virtual_time import run_in_virtual_time
from waiting import PATIENCE, wait_until

from tidemill_serving.protocol import PatientHttpProtocol
from tidemill_serving.unread import UnreadAnswer

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}


class Slow(asyncio.Transport):
    """A connection on which bytes are sent when the test says so."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting, self.aborted = waiting, False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


def play(scenario: Callable[[Slow, UnreadAnswer], Any]) -> None:
    async def begin() -> None:
        transport = Slow(waiting=100)
        unread = UnreadAnswer(transport, asyncio.get_running_loop(), seconds=10.0)
        unread.begin()
        await scenario(transport, unread)

    run_in_virtual_time(begin())


def test_what_is_taken_little_by_little_is_waited_for() -> None:
    async def scenario(transport: Slow, _unread: UnreadAnswer) -> None:
        for _ in range(50):
            await asyncio.sleep(9.0)
            transport.waiting -= 1
            assert not transport.aborted
        await asyncio.sleep(20.1)
        assert transport.aborted

    play(scenario)


def test_what_is_taken_in_time_is_forgotten() -> None:
    async def scenario(transport: Slow, unread: UnreadAnswer) -> None:
        await asyncio.sleep(9.0)
        unread.end()
        await asyncio.sleep(100.0)
        assert not transport.aborted

    play(scenario)


def request_for(rows: int) -> bytes:
    body = orjson.dumps({"rows": [ROW] * rows})
    head = b"POST /v1/features/delay_v1 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def is_reset(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLERR)
    return bool(poll.poll(0))


def test_a_client_that_reads_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientHttpProtocol, "take_timeout", 0.1)
    with closing(open_small(tmp_path, max_rows=200_000, request_timeout=PATIENCE)) as project:
        project.catalogs.add(catalog(), at=NOW)
        with served(project) as client, socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            lazy.connect((client.base_url.host, client.base_url.port))
            lazy.sendall(request_for(200_000))
            wait_until(lambda: is_reset(lazy))
            assert client.post("/v1/features/delay_v1", json={"rows": [ROW]}).status_code == 200


@pytest.mark.parametrize("sent", [b"what is this\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n"])
def test_what_is_no_http_is_refused_with_a_problem_document(tmp_path: Path, sent: bytes) -> None:
    with closing(open_small(tmp_path)) as project:
        project.catalogs.add(catalog(), at=NOW)
        with served(project) as client, socket.socket() as other:
            other.connect((client.base_url.host, client.base_url.port))
            other.sendall(sent)
            answer = b"".join(iter(lambda: other.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert orjson.loads(body)["status"] == httpx.codes.BAD_REQUEST
