"""Answers that are sent head and body together, on the connection's own terms."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

import httpx
import pytest
from small_project import served
from waiting import PATIENCE

from tidemill.project import Project

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}


def request(rows: int, *headers: str) -> bytes:
    body = json.dumps({"rows": [ROW] * rows}).encode()
    lines = ["POST /v1/features/delay_v1 HTTP/1.1", "host: here", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def connection(client: httpx.Client) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """A connection to write to, and what comes back on it."""
    assert client.base_url.port is not None
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=PATIENCE) as line, line.makefile("rb") as answers:
        yield line, answers


def read_answer(answers: BinaryIO) -> tuple[list[bytes], dict]:
    head = list(iter(lambda: answers.readline().rstrip(b"\r\n"), b""))
    [length] = [int(field.partition(b":")[2]) for field in head if field.startswith(b"content-length")]
    return head, json.loads(answers.read(length))


def test_a_connection_is_kept_and_serves_one_request_after_the_other(project: Project) -> None:
    with served(project) as client, connection(client) as (line, answers):
        for rows in (1, 3, 2):
            line.sendall(request(rows))
            head, answer = read_answer(answers)
            assert head[0] == b"HTTP/1.1 200 OK"
            assert b"content-type: application/json" in head
            assert not [field for field in head if field.startswith(b"connection")]
            assert answer["features"]["temp"] == [21.5] * rows


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_who_asks_for_one_answer_only_is_told_that_the_connection_ends_and_it_does(
    project: Project, version: bytes
) -> None:
    with served(project) as client, connection(client) as (line, answers):
        line.sendall(request(1, "connection: close").replace(b"HTTP/1.1", version))
        head, _answer = read_answer(answers)
        assert b"connection: close" in head
        assert answers.read() == b""


def test_who_waits_to_be_told_to_go_on_is_told_once(project: Project) -> None:
    whole = request(1, "expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    with served(project) as client, connection(client) as (line, answers):
        line.sendall(head + b"\r\n\r\n")
        assert answers.readline() + answers.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(body)
        assert read_answer(answers)[1]["features"]["temp"] == [21.5]


def test_who_reads_late_gets_every_answer_whole(project: Project) -> None:
    """More than the buffers of both sides hold: the server has to wait, and must neither lose nor mix anything."""
    with served(project) as client, connection(client) as (line, answers), ThreadPoolExecutor(1) as sender:
        sent = sender.submit(line.sendall, request(2_000) * 40)
        for _ in range(40):
            assert len(read_answer(answers)[1]["features"]["temp"]) == 2_000
        sent.result(PATIENCE)
