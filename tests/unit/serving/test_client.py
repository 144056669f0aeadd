"""The client reads answers into typed values and tries again what failed for a passing reason, and only that."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from http_servers import QuietHandler, answering
from small_model import promote
from small_project import NOW, served
from waiting import PATIENCE

from tidemill.client import (
    AsyncClient,
    Client,
    RequestRefusedError,
    Retry,
    ServerFailedError,
    ServerUnavailableError,
)
from tidemill.client.calls import as_json
from tidemill.errors import InputError
from tidemill.project import Project

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}
QUICK = Retry(attempts=3, first=0.001, longest=0.01)
RECEIPT = b'{"accepted": 1, "duplicates": 0, "rejected": [], "ignored": []}'


def test_predictions_features_and_models_come_as_typed_values(project: Project) -> None:
    promote(project, 1)
    with served(project) as http, Client(str(http.base_url)) as client:
        assert client.ready()
        answer = client.predict("delay", [ROW | {"flight": "B6-1"}], explain=True)
        assert (answer.model, answer.version, answer.at, len(answer)) == ("delay", 1, NOW, 1)
        assert answer[0].id == "B6-1"
        assert answer[0].features == {"temp": 21.5, "hours": 2.0}
        vectors = client.features("delay_v1", pl.DataFrame([ROW, ROW]))
        assert vectors.row(1) == {"temp": 21.5, "hours": 2.0}
        assert client.features(["weather:temp"], [{"origin": "JFK", "route": 1}]).features == {"temp": [21.5]}
        [model] = client.models()
        assert (model.name, model.version, model.row[0]["name"]) == ("delay", 1, "origin")


def test_the_async_client_answers_alike(project: Project) -> None:
    promote(project, 1)

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            assert await client.ready()
            answers = await asyncio.gather(*(client.predict("delay", [ROW]) for _ in range(10)))
            assert {answer.version for answer in answers} == {1}
            assert (await client.models())[0].name == "delay"
            assert (await client.features("delay_v1", [ROW])).features["temp"] == [21.5]
            with pytest.raises(RequestRefusedError):
                await client.predict("unknown", [ROW])

    with served(project) as http:
        asyncio.run(ask(str(http.base_url)))


def test_a_refusal_says_what_the_server_said_and_is_not_tried_again(project: Project) -> None:
    promote(project, 1)
    with (
        served(project) as http,
        Client(str(http.base_url)) as client,
        pytest.raises(RequestRefusedError, match="found nothing, expected join key: a string") as refused,
    ):
        client.predict("delay", [{"route": 1, "distance": 1.0}])
    assert refused.value.status == 422
    assert refused.value.problem["errors"][0]["where"] == "rows[0].origin"


class Script:
    """A server that answers with the given statuses one after the other, then with 200, and always with `answer`."""

    def __init__(self, *statuses: int, answer: bytes = RECEIPT, encoding: str | None = None) -> None:
        self.statuses, self.asked, self.answer, self.encoding = list(statuses), 0, answer, encoding
        self.bodies: list[bytes] = []


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:
            script.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            script.asked += 1
            status = script.statuses.pop(0) if script.statuses else 200
            self.send_response(status)
            self.send_header("content-length", str(len(script.answer)))
            if script.encoding is not None:
                self.send_header("content-encoding", script.encoding)
            self.end_headers()
            self.wfile.write(script.answer)

    with answering(Handler) as address:
        yield f"http://{address}"


@pytest.mark.parametrize(
    ("statuses", "repeatable", "asked"),
    [
        ([503, 504], True, 3),
        ([429, 429], False, 3),
        ([503, 503, 503], True, 3),
        ([503], False, 1),
        ([400], True, 1),
        ([500], True, 1),
    ],
)
def test_only_what_may_pass_and_cannot_happen_twice_is_tried_again(
    statuses: list[int], repeatable: bool, asked: int
) -> None:
    script = Script(*statuses)
    with scripted(script) as url, Client(url, retry=QUICK) as client:
        if asked > len(statuses):
            assert client.push("s", [{}], repeatable=repeatable).accepted == 1
        else:
            kinds = RequestRefusedError | ServerFailedError | ServerUnavailableError
            with pytest.raises(kinds.__args__):
                client.push("s", [{}], repeatable=repeatable)
    assert script.asked == asked


def test_the_async_client_tries_again_by_the_same_rule() -> None:
    async def push(script: Script, *, repeatable: bool) -> int:
        with scripted(script) as url:
            async with AsyncClient(url, retry=QUICK) as client:
                return (await client.push("s", [{}], repeatable=repeatable)).accepted

    passing, once = Script(503, 429), Script(503)
    assert asyncio.run(push(passing, repeatable=True)) == 1
    with pytest.raises(ServerUnavailableError):
        asyncio.run(push(once, repeatable=False))
    assert (passing.asked, once.asked) == (3, 1)


@pytest.mark.parametrize(
    ("statuses", "answer"), [([], b"<html>Please log in</html>"), ([302], b""), ([], b"[]"), ([], b'{"accepted": 1}')]
)
def test_an_answer_that_is_none_of_the_api_is_named_as_such(statuses: list[int], answer: bytes) -> None:
    script = Script(*statuses, answer=answer)
    with scripted(script) as url, Client(url) as client, pytest.raises(ServerFailedError, match="something else"):
        client.push("s", [{}])
    assert script.asked == 1


def test_a_server_that_is_silent_is_given_up_after_the_timeout_of_each_attempt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, timeout=0.05, retry=QUICK) as client,
            pytest.raises(ServerUnavailableError, match="ReadTimeout"),
        ):
            client.predict("delay", [ROW])
        silent.settimeout(PATIENCE)
        assert [silent.accept()[0].close() for _ in range(QUICK.attempts)] == [None] * QUICK.attempts


def test_a_policy_that_never_asks_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        Retry(attempts=0)


def test_a_server_that_is_not_there_is_named_after_the_last_attempt() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # held, so that nobody else listens on it
        with Client(f"http://127.0.0.1:{port}", retry=QUICK) as client:
            assert not client.ready()
            with pytest.raises(ServerUnavailableError, match="tidemill up"):
                client.models()


def test_pauses_double_are_drawn_at_random_and_respect_what_the_server_asks() -> None:
    retry = Retry(first=0.1, longest=1.0, draw=lambda: 0.5)
    assert [round(retry.pause(attempt, None), 3) for attempt in range(6)] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert retry.pause(0, "1") == 1.0
    assert retry.pause(0, "60") == 1.0
    assert retry.pause(0, "Wed, 21 Oct 2015 07:28:00 GMT") == 0.05


def test_rows_may_hold_instants() -> None:
    assert as_json({"at": datetime(2013, 1, 1, tzinfo=UTC)}) == b'{"at":"2013-01-01T00:00:00+00:00"}'


def test_a_prediction_that_is_asked_for_again_keeps_its_name() -> None:
    script = Script(503, 503, 400)
    with scripted(script) as url, Client(url, retry=QUICK) as client, pytest.raises(RequestRefusedError):
        client.predict("delay", [ROW])
    names = [json.loads(body)["request_id"] for body in script.bodies]
    assert len(names) == 3
    assert len(set(names)) == 1


def test_what_json_cannot_say_is_named_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InputError, match="complex"):
        client.predict("delay", [ROW | {"distance": 1j}])
    assert as_json({"key": b"\x00\xff"}) == b'{"key":"AP8="}'


@pytest.mark.parametrize("rows", [5, ROW, ["JFK"], "JFK", [ROW, None]])
def test_what_holds_no_rows_is_named_before_anything_is_sent(rows: Any) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InputError, match="list of mappings"):
        client.predict("delay", rows)


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://host"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_url_is_named_before_anything_is_asked(url: str, kind: Any) -> None:
    with pytest.raises(InputError, match="no URL of an API"):
        kind(url)


def test_an_answer_that_cannot_be_unpacked_is_one_of_our_errors() -> None:
    """As something between client and server may send it."""
    script = Script(answer=b"not compressed", encoding="gzip")
    with (
        scripted(script) as url,
        Client(url, retry=QUICK) as client,
        pytest.raises(ServerUnavailableError, match="DecodingError"),
    ):
        client.push("events", [ROW])
    assert script.asked == 1
