"""Redis slow, full, killed or holding what nobody wrote: the API says so, recovers, and loses nothing acknowledged."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import redis
from own_redis import closed_with_redis
from small_live import FEATURES, PREDICT, PUSH, ROW, live, open_with_redis, pushed, small_catalog, weather
from small_model import promote
from small_project import NOW, catalog, served
from stalling import stalled
from waiting import PATIENCE, wait_for_end_of, wait_until

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Field, Projection, Service, View
from tidemill.definitions.types import ValueType
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project

BODIES = {
    PREDICT: {"rows": [ROW]},
    FEATURES: {"rows": [ROW]},
    "/v1/features": {"features": ["weather:temp"], "rows": [{"origin": "JFK", "route": 1}]},
    "/get-online-features": {"features": ["weather:temp"], "entities": {"origin": ["JFK"], "route": [1]}},
    PUSH: {"rows": [pushed("JFK", 23.0)]},
}
READS = [path for path in BODIES if path != PUSH]


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The small project with windows; a test may say how many seconds it waits for Redis."""
    timeout = getattr(request, "param", 60.0)
    applied = small_catalog(**with_windows())
    with closed_with_redis(open_with_redis(tmp_path, applied=applied, redis_timeout=timeout)) as opened:
        opened.online.write("weather", weather([("JFK", 1, 21.5), ("LGA", 1, 22.5)]))
        promote(opened, 1)
        yield opened


@pytest.fixture
def online(project: Project) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(project.redis_address()) as client:
        yield client


def with_windows() -> dict[str, object]:
    """The small catalog's parts with a windowed view over the same stream."""
    [plain] = catalog().views
    hour, hop = timedelta(hours=1), timedelta(minutes=5)
    counted = Aggregation(name="seen", function=AggregationFunction.COUNT, column="temp", window=hour, hop=hop)
    windows = View(
        name="traffic",
        entities=plain.entities,
        join_keys=plain.join_keys,
        features=(Field(name="seen", dtype=ValueType.INT64),),
        source=plain.source,
        stream=plain.stream,
        aggregations=(counted,),
    )
    service = Service(name="traffic_v1", projections=(Projection(view="traffic", features=("seen",)),))
    return {"views": (plain, windows), "services": (*catalog().services, service)}


def statuses(client: httpx.Client, paths: list[str]) -> list[int]:
    return [client.post(path, json=BODIES[path]).status_code for path in paths]


@pytest.mark.parametrize("project", [0.5], indirect=True)
def test_a_redis_that_stands_still_is_503_on_every_path_and_recovered_from(project: Project) -> None:
    with served(project) as client:
        wait_until(lambda: statuses(client, [*BODIES]) == [200] * 5)
        with stalled(EmbeddedRedis(project.redis_folder).pid):
            for path, body in BODIES.items():
                refused = client.post(path, json=body)
                assert (path, refused.status_code) == (path, 503)
                assert "did not answer within 0.5 s" in refused.json()["detail"]
                assert refused.headers["retry-after"] == "1"
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 503
        wait_until(lambda: statuses(client, [*BODIES]) == [200] * 5)
        wait_until(lambda: client.get("/readyz").status_code == 200)


def test_a_full_redis_takes_no_push_and_answers_reads_and_takes_them_again(
    project: Project, online: redis.Redis
) -> None:
    with served(project) as client:
        online.config_set("maxmemory", 1)
        refused = client.post(PUSH, json={"rows": [pushed("EWR", 1.0)]})
        assert refused.status_code == 503
        assert "redis_maxmemory" in refused.json()["hint"]
        assert statuses(client, READS) == [200] * 4
        online.config_set("maxmemory", 0)
        assert client.post(PUSH, json={"rows": [pushed("EWR", 1.0)]}).status_code == 200
        answer = client.post(FEATURES, json={"rows": [ROW | {"origin": "EWR"}]}).json()
        assert answer["features"]["temp"] == [1.0]


def test_a_redis_that_is_killed_under_pushes_loses_nothing_that_was_acknowledged(project: Project) -> None:
    server = EmbeddedRedis(project.redis_folder)
    acknowledged: list[str] = []
    other: set[int] = set()
    over = threading.Event()

    def push_on(url: str, writer: int) -> None:
        number = 0
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            while not over.is_set():
                origin, number = f"{writer}-{number}", number + 1
                status = client.post(PUSH, json={"rows": [pushed(origin, 1.0)]}).status_code
                if status == 200:
                    acknowledged.append(origin)
                else:
                    other.add(status)

    with live(project) as api:
        writers = [threading.Thread(target=push_on, args=(api.url, writer)) for writer in range(3)]
        for writer in writers:
            writer.start()
        for _ in range(3):
            before = len(acknowledged)
            wait_until(lambda before=before: len(acknowledged) > before + 60)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: other)
            server.ensure_started()
        before = len(acknowledged)
        wait_until(lambda: len(acknowledged) > before + 60)
        over.set()
        wait_for_end_of(*writers)
        rows = [{"origin": origin, "route": 1} for origin in acknowledged[:10_000]]
        body = {"features": ["weather:temp", "traffic:seen"], "rows": rows}
        found = httpx.post(f"{api.url}/v1/features", json=body, timeout=PATIENCE)
    assert other == {503}
    assert set(found.json()["features"]["temp"]) == {1.0}
    assert None not in found.json()["features"]["seen"]
    assert 0 not in found.json()["features"]["seen"]


def test_an_embedded_redis_that_is_killed_is_started_again_by_the_server(project: Project) -> None:
    server = EmbeddedRedis(project.redis_folder)
    with live(project) as api, httpx.Client(base_url=api.url, timeout=PATIENCE) as client:
        assert client.post(PUSH, json={"rows": [pushed("JFK", 7.0)]}).status_code == 200
        killed = server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: server.pid not in (None, killed))
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.post(FEATURES, json={"rows": [ROW]}).json()["statuses"]["temp"] == ["PRESENT"]


@pytest.mark.parametrize("made_of", ["text", "list", "set"])
def test_a_key_that_holds_something_of_another_kind_is_not_found_and_never_a_defect(
    project: Project, online: redis.Redis, caplog: pytest.LogCaptureFixture, made_of: str
) -> None:
    with served(project) as client:
        assert client.post(PUSH, json={"rows": [pushed("JFK", 23.0)]}).status_code == 200
        for key in [key for key in online.scan_iter() if b"JFK" in key]:
            online.delete(key)
            {"text": online.set, "list": online.rpush, "set": online.sadd}[made_of](key, "\xff nonsense")
        with caplog.at_level(logging.WARNING):
            rows = [ROW, ROW | {"origin": "LGA"}]
            found = client.post(FEATURES, json={"rows": rows})
            many = client.post(FEATURES, json={"rows": rows * 50})
            windows = client.post("/v1/features/traffic_v1", json={"rows": [{"origin": "JFK", "route": 1}]})
            assert client.post(PREDICT, json={"rows": rows}).status_code == 200
        assert found.status_code == windows.status_code == 200
        assert found.json()["features"]["temp"] == [None, 22.5]
        assert found.json()["statuses"]["temp"] == ["NOT_FOUND", "PRESENT"]
        assert many.json()["features"]["temp"] == [None, 22.5] * 50
        assert windows.json()["features"]["seen"] == [0]
        assert windows.json()["statuses"]["seen"] == ["NOT_FOUND"]
        assert "is not what the catalog says" in caplog.text
        assert project.online.read("delay_v1", rows * 20).values["temp"] == [None, 22.5] * 20
        refused = client.post(PUSH, json={"rows": [pushed("JFK", 24.0)]})
        assert refused.status_code == 409
        assert "something of another kind" in refused.json()["detail"]


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"\x00" * 100, b"\x20" + b"\xff" * 9, b"x" * 10_000])
def test_bytes_that_are_no_value_are_null_with_a_status_wherever_they_are_found(
    project: Project, online: redis.Redis, raw: bytes
) -> None:
    with served(project) as client:
        assert client.post(PUSH, json={"rows": [pushed("JFK", 23.0)]}).status_code == 200
        for key in [key for key in online.scan_iter() if b"JFK" in key]:
            if online.type(key) == b"hash":
                online.hset(key, mapping=dict.fromkeys(online.hkeys(key), raw))
            else:
                online.set(key, raw)
        assert statuses(client, READS) == [200] * 4
        found = client.post(FEATURES, json={"rows": [ROW]}).json()
        assert found["features"]["temp"] == [None]
        assert found["statuses"]["temp"] != ["PRESENT"]
        windows = client.post("/v1/features/traffic_v1", json={"rows": [{"origin": "JFK", "route": 1}]})
        assert windows.status_code == 200


def test_a_value_of_another_type_is_null_and_counted(project: Project, online: redis.Redis) -> None:
    """A text where a number is declared, as an older definition of the same name would leave it."""
    [view] = catalog().views
    older = replace(view, features=(Field(name="temp", dtype=ValueType.STRING),))
    project.catalogs.add(small_catalog(views=(older,), models=()), at=NOW)
    project.reload()
    text = weather([("JFK", 1, 0.0)], at=NOW).with_columns(temp=weather([("JFK", 1, 0.0)])["origin"])
    project.online.write("weather", text)
    project.catalogs.add(small_catalog(), at=NOW)
    project.reload()
    with served(project) as client:
        found = client.post(FEATURES, json={"rows": [ROW]}).json()
        assert found["features"]["temp"] == [None]
        assert found["statuses"]["temp"] == ["NULL_VALUE"]
        assert 'status="NULL_VALUE"} 1.0' in client.get("/metrics").text
    assert project.online.wrong.count["weather:temp"] >= 1
