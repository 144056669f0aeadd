"""POST /v1/features/{service} answers by column, and says exactly what is wrong with a bad request."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_project import NOW, DictionaryStore, catalog, open_small, served, wait_until
from waiting import PATIENCE

from tidemill.project import Project

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    project = open_small(tmp_path_factory.mktemp("project"))
    project.catalogs.add(catalog(), at=NOW)
    with served(project) as client:
        yield client
    project.close()


def read(client: httpx.Client, body: Any, **options: Any) -> httpx.Response:
    return client.post("/v1/features/delay_v1", json=body, **options)


def test_values_and_statuses_come_by_feature_in_the_order_of_the_rows(client: httpx.Client) -> None:
    rows = [ROW, ROW | {"origin": "LGA"}, ROW | {"origin": "XXX", "distance": 500}]
    answer = read(client, {"rows": rows}).json()
    assert answer == {
        "service": "delay_v1",
        "catalog_version": 1,
        "at": "2013-10-01T12:00:00Z",
        "features": {"temp": [21.5, None, None], "hours": [2.0, 2.0, 1.0]},
        "statuses": {
            "temp": ["PRESENT", "NULL_VALUE", "NOT_FOUND"],
            "hours": ["PRESENT", "PRESENT", "PRESENT"],
        },
        "stale": {},
    }


def test_event_times_come_when_asked_for(client: httpx.Client) -> None:
    answer = read(client, {"rows": [ROW, ROW | {"origin": "X"}], "event_times": True}).json()
    assert answer["event_times"] == {"temp": ["2013-10-01T12:00:00Z", None], "hours": [None, None]}


def test_floats_that_json_cannot_say_are_texts(project: Project) -> None:
    with served(project) as client:
        project.online.temperatures |= {"A": float("nan"), "B": float("inf"), "C": float("-inf")}
        answer = read(client, {"rows": [ROW | {"origin": name} for name in "ABC"]}).json()
    assert answer["features"]["temp"] == ["NaN", "Infinity", "-Infinity"]
    assert answer["statuses"]["temp"] == ["PRESENT"] * 3


def test_features_can_be_named_one_by_one(client: httpx.Client) -> None:
    answer = client.post("/v1/features", json={"features": ["weather:temp"], "rows": [{"origin": "JFK", "route": 1}]})
    assert answer.json()["features"] == {"temp": [21.5]}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"rows": [{"route": 1, "distance": 1.0}]}, 422, "rows[0].origin: found nothing, expected join key: a string"),
        ({"rows": [ROW, {**ROW, "origin": 7}]}, 422, "rows[1].origin: found the number 7, expected a string"),
        ({"rows": [{**ROW, "route": "1"}]}, 422, "expected a whole number of 64 bits"),
        ({"rows": [{**ROW, "route": 1.5}]}, 422, "rows[0].route: found the number 1.5"),
        ({"rows": [{**ROW, "route": 1e300}]}, 422, "rows[0].route: found the number 1e+300"),
        ({"rows": [{**ROW, "route": True}]}, 422, "rows[0].route: found the boolean True"),
        ({"rows": [{**ROW, "route": 2**63}]}, 422, "rows[0].route: found the number 9223372036854775808"),
        ({"rows": [{**ROW, "distance": "far"}]}, 422, "rows[0].distance: found the string 'far', expected a number"),
        ({"rows": [{**ROW, "distanse": 1.0}]}, 422, "did you mean 'distance'?"),
        ({"rows": [7]}, 422, "rows[0]: found a number, expected an object"),
        ({"rows": []}, 422, "`rows` is empty"),
        ({"rows": {"origin": "JFK"}}, 400, "`rows` is an object; an array of objects was expected"),
        ({"row": [ROW]}, 400, "unknown fields: row"),
        ({}, 400, "`rows` is null"),
        ([ROW], 400, "The body is a JSON array; an object was expected"),
        ({"rows": [ROW], "event_times": "yes"}, 400, "`event_times` is neither true nor false"),
    ],
)
def test_a_request_that_does_not_fit_is_told_where_what_and_what_was_expected(
    client: httpx.Client, body: Any, status: int, says: str
) -> None:
    answer = read(client, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert says in problem["detail"]
    assert problem["status"] == status
    assert problem["instance"] == "/v1/features/delay_v1"


def test_every_fault_is_listed(client: httpx.Client) -> None:
    problem = read(client, {"rows": [{**ROW, "origin": 7, "route": "x"}, {}]}).json()
    assert [fault["where"] for fault in problem["errors"]] == [
        "rows[0].origin", "rows[0].route", "rows[1].origin", "rows[1].route", "rows[1].distance",
    ]  # fmt: skip


def test_a_compressed_body_is_told_what_it_is(project: Project) -> None:
    with served(project) as client:
        answer = client.post("/v1/features/delay_v1", content=gzip.compress(b'{"rows": []}'))
    assert answer.status_code == 400
    assert "compressed" in answer.json()["detail"]


@pytest.mark.parametrize("text", ["", "{", '{"rows": [{"route": NaN}]}', "\x00", '{"rows": Infinity}'])
def test_a_body_that_is_not_json_is_refused(client: httpx.Client, text: str) -> None:
    answer = client.post("/v1/features/delay_v1", content=text)
    assert answer.status_code == 400
    assert "Send a JSON object" in answer.json()["hint"]


def test_a_null_key_matches_nothing(client: httpx.Client) -> None:
    answer = read(client, {"rows": [{**ROW, "origin": None}]}).json()
    assert answer["statuses"]["temp"] == ["NOT_FOUND"]


def test_a_whole_number_may_be_written_with_a_fraction_of_zero(client: httpx.Client) -> None:
    assert read(client, {"rows": [{**ROW, "route": 1.0}]}).json()["features"]["temp"] == [21.5]


def test_negative_and_huge_keys_are_just_keys(client: httpx.Client) -> None:
    rows = [{**ROW, "route": key} for key in (-1, -(2**63), 2**63 - 1)]
    assert read(client, {"rows": rows}).json()["features"]["temp"] == [21.5] * 3


def test_an_unknown_service_is_404_with_a_suggestion(client: httpx.Client) -> None:
    answer = client.post("/v1/features/delay_v2", json={"rows": [ROW]})
    assert answer.status_code == 404
    assert answer.json()["hint"] == "Did you mean 'delay_v1'?"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/features", {"rows": [{"origin": "JFK", "route": 1}]}),
        ("/get-online-features", {"entities": {"origin": ["JFK"], "route": [1]}}),
    ],
)
def test_a_feature_that_is_named_over_and_over_is_planned_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    planned = []
    read = DictionaryStore.aread_features

    async def noted(store: DictionaryStore, references: list[str], rows: Any, **_options: Any) -> Any:
        planned.append(references)
        return await read(store, references, rows)

    monkeypatch.setattr(DictionaryStore, "aread_features", noted)
    with served(project) as http:
        assert http.post(path, json=body | {"features": ["weather:temp"] * 1_000}).status_code == 200
    assert planned == [["weather:temp"]]


def test_an_unknown_feature_is_404(client: httpx.Client) -> None:
    answer = client.post("/v1/features", json={"features": ["weather:tmp"], "rows": [{"origin": "JFK", "route": 1}]})
    assert answer.status_code == 404
    assert "Did you mean 'temp'?" in answer.json()["hint"]


def test_more_rows_than_the_limit_are_refused(tmp_path: Path) -> None:
    project = open_small(tmp_path, max_rows=3)
    project.catalogs.add(catalog(), at=NOW)
    with served(project) as client:
        assert read(client, {"rows": [ROW] * 3}).status_code == 200
        refused = read(client, {"rows": [ROW] * 4})
    project.close()
    assert refused.status_code == 422
    assert "at most 3" in refused.json()["detail"]


def test_a_store_that_is_gone_is_503_and_comes_back_by_itself(project: Project) -> None:
    with served(project) as client:
        project.online.gone = True
        refused = read(client, {"rows": [ROW]})
        assert refused.status_code == 503
        assert "Redis does not answer" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "1"
        assert client.get("/readyz").status_code == 503
        project.online.gone = False
        assert read(client, {"rows": [ROW]}).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_before_the_first_apply_the_server_answers_503_and_serves_once_applied(tmp_path: Path) -> None:
    project = open_small(tmp_path)
    with served(project, wait=False) as client:
        assert client.get("/healthz").status_code == 200
        assert read(client, {"rows": [ROW]}).status_code == 503
        wait_until(lambda: "tidemill apply" in read(client, {"rows": [ROW]}).text)
        assert read(client, {"rows": [ROW]}).status_code == 503
        project.catalogs.add(catalog(), at=NOW)
        wait_until(lambda: client.serving.ready)  # type: ignore[attr-defined]
        assert read(client, {"rows": [ROW]}).status_code == 200
    project.close()


def test_a_newer_catalog_is_taken_up_without_a_restart_and_the_old_store_is_closed_later(project: Project) -> None:
    with served(project) as client:
        before = project.online
        project.catalogs.add(catalog(models=()), at=NOW)
        wait_until(lambda: client.serving.snapshot.version == 2)  # type: ignore[attr-defined]
        assert read(client, {"rows": [ROW]}).json()["catalog_version"] == 2
        assert client.post("/v1/models/delay/predict", json={"rows": [ROW]}).status_code == 404
        assert project.online is not before
        assert not before.closed


def test_a_request_that_has_begun_ends_on_the_catalog_it_began_with(project: Project) -> None:
    """Some wait for the store and some for their turn while the service is taken out of the catalog."""
    gate = asyncio.Event()
    with served(project) as client, ThreadPoolExecutor(20) as threads:
        project.online.gate = gate.wait
        waiting = [threads.submit(read, client, {"rows": [ROW]}) for _ in range(20)]
        pending = {"kind": "features", "name": "delay_v1"}
        meter = client.serving.metrics.registry.get_sample_value  # type: ignore[attr-defined]
        wait_until(lambda: meter("tidemill_pending_requests", pending) == 20)
        project.catalogs.add(catalog(services=(), models=()), at=NOW)
        wait_until(lambda: client.serving.snapshot.version == 2)  # type: ignore[attr-defined]
        client.serving._loop.call_soon_threadsafe(gate.set)  # type: ignore[attr-defined]
        answers = [future.result(PATIENCE) for future in waiting]
        assert read(client, {"rows": [ROW]}).status_code == 404
    assert [answer.status_code for answer in answers] == [200] * 20
    assert {answer.json()["catalog_version"] for answer in answers} == {1}
