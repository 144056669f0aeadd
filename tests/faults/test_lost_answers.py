"""Answers that get lost on their way: the client asks again where that is safe, and nothing counts twice."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from small_live import ROW, pushed
from small_model import promoted_with_redis
from small_project import served

from tidemill.client import AsyncClient, Client, Retry, ServerUnavailableError
from tidemill.project import Project

QUICK = Retry(attempts=4, first=0.001, longest=0.01)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with promoted_with_redis(tmp_path) as opened:
        yield opened


@contextmanager
def losing(api: httpx.Client, answers: int) -> Iterator[str]:
    """A way to the API on which the first so many answers are lost: the server has done its work, and nobody hears."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the listener was closed: it is over
            for number in range(1_000):
                _pass_on(listener.accept()[0], api, lost=number < answers)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _pass_on(line: socket.socket, api: httpx.Client, *, lost: bool) -> None:
    with line:
        head, _, body = line.recv(65_536).partition(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        fields = dict(field.split(b": ", 1) for field in head.lower().split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += line.recv(65_536)
        answer = api.request(method, path, content=body)
        if not lost:
            told = b"HTTP/1.1 %d x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            line.sendall(told % (answer.status_code, len(answer.content)) + answer.content)


def test_a_prediction_whose_answers_get_lost_is_asked_for_again_and_logged_once(project: Project) -> None:
    with served(project) as api:
        with losing(api, 2) as url, Client(url, retry=QUICK) as client:
            first = client.predict("delay", [ROW, ROW])

        async def ask(url: str) -> list[str]:
            async with AsyncClient(url, retry=QUICK) as client:
                return [row.prediction_id for row in await client.predict("delay", [ROW], request_id="order-8")]

        with losing(api, 3) as url:
            second = asyncio.run(ask(url))
    assert second == ["order-8-0"]
    written = [line for file in (project.state / "predictions").iterdir() for line in file.read_text().splitlines()]
    assert sum(json.loads(line)["rows"] for line in written) == 2 * 3 + 4
    assert project.predictions.scan("delay")["prediction_id"].to_list() == [row.prediction_id for row in first] + second


def test_a_push_whose_answer_gets_lost_is_not_sent_again_unless_that_is_said_to_be_safe(project: Project) -> None:
    with served(project) as api:
        with losing(api, 1) as url, Client(url, retry=QUICK) as client, pytest.raises(ServerUnavailableError):
            client.push("weather_now", [pushed("EWR", 1.0)])
        with losing(api, 1) as url, Client(url, retry=QUICK) as client:
            assert client.push("weather_now", [pushed("LGA", 2.0)], repeatable=True).accepted == 1
            vectors = client.features("delay_v1", [ROW | {"origin": "EWR"}, ROW | {"origin": "LGA"}])
            assert vectors.features["temp"] == [1.0, 2.0]
        metrics = api.get("/metrics").text
    assert 'tidemill_pushed_rows_total{outcome="accepted",source="weather_now"} 3.0' in metrics
