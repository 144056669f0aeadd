"""The API on real parts: uvicorn, Redis, an artifact on disk, the metadata database."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import redis
import small_live
import waiting
from own_redis import closed_with_redis
from small_live import FEATURES, ON_DEMAND, PREDICT, ROW, open_with_redis, small_catalog, weather
from small_model import promote
from small_project import NOW, catalog, served
from stalling import stalled
from waiting import PATIENCE, wait_until

from tidemill.definitions.catalog import Catalog, Freshness, StalePolicy
from tidemill.errors import ConflictError
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project
from tidemill_serving.process import run_server


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The small project with its own Redis, in which two airports have weather; a test may give more settings."""
    with closed_with_redis(open_with_redis(tmp_path, **getattr(request, "param", {}))) as opened:
        opened.online.write("weather", weather([("JFK", 1, 21.5), ("LGA", 1, None)]))
        yield opened


def test_features_come_from_redis_with_their_statuses_and_event_times(project: Project) -> None:
    rows = [ROW, ROW | {"origin": "LGA"}, ROW | {"origin": "XXX"}, ROW | {"origin": None}]
    with served(project) as client:
        answer = client.post(FEATURES, json={"rows": rows, "event_times": True}).json()
    assert answer["features"] == {"temp": [21.5, None, None, None], "hours": [2.0] * 4}
    assert answer["statuses"]["temp"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND", "NOT_FOUND"]
    assert answer["event_times"]["temp"] == ["2013-10-01T11:00:00Z"] * 2 + [None] * 2


def test_a_prediction_is_what_the_artifact_says_of_the_vector_that_was_read(project: Project) -> None:
    artifact = promote(project, 1)
    with served(project) as client:
        answer = client.post(PREDICT, json={"rows": [ROW, ROW | {"origin": "LGA"}], "explain": True}).json()
    expected = artifact.predict({"temp": [21.5, None], "hours": [2.0, 2.0]}).tolist()
    assert [row["prediction"] for row in answer["predictions"]] == expected
    assert project.predictions.scan()["prediction"].to_list() == expected


def test_redis_gone_is_503_with_the_reason_and_comes_back_by_itself(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        assert client.post(PREDICT, json={"rows": [ROW]}).status_code == 200
        EmbeddedRedis(project.redis_folder).stop()
        for path in (PREDICT, FEATURES):
            refused = client.post(path, json={"rows": [ROW]})
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:tidemill:problem:online-store-unavailable"
        assert client.get("/readyz").json()["parts"]["online_store"]["ok"] is False
        EmbeddedRedis(project.redis_folder).ensure_started()
        wait_until(lambda: client.post(PREDICT, json={"rows": [ROW]}).status_code == 200)
        assert client.get("/readyz").status_code == 200
    assert project.predictions.scan().height == 2


@pytest.mark.parametrize("project", [{"redis_timeout": 0.5}], indirect=True, ids=["half a second"])
def test_redis_that_hangs_is_503_within_its_time(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        wait_until(lambda: client.post(PREDICT, json={"rows": [ROW]}).status_code == 200)
        with stalled(EmbeddedRedis(project.redis_folder).pid):
            assert client.post(PREDICT, json={"rows": [ROW]}).status_code == 503
        wait_until(lambda: client.post(PREDICT, json={"rows": [ROW]}).status_code == 200)


def test_a_value_in_redis_that_is_not_what_the_catalog_says_is_no_500(project: Project) -> None:
    store = redis.Redis.from_url(project.redis_address())
    [key] = [name for name in store.scan_iter() if store.type(name) == b"hash" and b"JFK" in name]
    for field in store.hkeys(key):
        if not field.startswith(b"_"):
            store.hset(key, field, b"\xff\xfe not a value")
    with served(project) as client:
        answer = client.post(FEATURES, json={"rows": [ROW]})
    store.close()
    assert answer.status_code == 200
    assert answer.json()["features"]["temp"] == [None]
    assert answer.json()["statuses"]["temp"] != ["PRESENT"]


def test_catalogs_and_models_that_change_under_load_fail_no_request(project: Project) -> None:
    promote(project, 1)
    failed: list[str] = []
    served_versions: set[tuple[int, int]] = set()
    over = threading.Event()

    def ask_on(client: httpx.Client) -> None:
        while not over.is_set():
            predicted = client.post(PREDICT, json={"rows": [ROW]})
            read = client.post(FEATURES, json={"rows": [ROW]})
            failed.extend(answer.text for answer in (predicted, read) if answer.status_code != 200)
            if not failed:
                served_versions.add((predicted.json()["version"], read.json()["catalog_version"]))

    with served(project) as client, ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(ask_on, client) for _ in range(6)]
        for version in range(2, 6):
            project.catalogs.add(replace(small_catalog(), streams=replace_description(version)), at=NOW)
            promote(project, version)
            wait_until(lambda version=version: any(seen >= (version, version) for seen in served_versions) or failed)
        over.set()
        for one in asking:
            one.result(PATIENCE)
    assert failed == []
    assert max(served_versions) == (5, 5)


def test_an_on_demand_function_is_called_once_for_all_that_is_answered_together(project: Project) -> None:
    counting = ON_DEMAND.replace("    return", "    note(len(inputs['distance']))\n    return") + NOTE
    (project.root / "flight_time.py").write_text(counting)
    project.catalogs.add(small_catalog(on_demand=counting), at=NOW)
    rows = [ROW | {"distance": float(number)} for number in range(500)]
    with served(project) as client, ThreadPoolExecutor(20) as threads:
        answer = client.post(FEATURES, json={"rows": rows}).json()
        assert answer["features"]["hours"] == [number / 500 for number in range(500)]
        assert calls(project) == [500]
        with stalled(EmbeddedRedis(project.redis_folder).pid):
            waiting = [threads.submit(client.post, FEATURES, json={"rows": [row]}) for row in rows[:20]]
            wait_until(lambda: pending(client, "features", "delay_v1") == 20)
        assert [one.result(PATIENCE).json()["features"]["hours"] for one in waiting] == [[n / 500] for n in range(20)]
        assert sum(calls(project)) == 520
        assert len(calls(project)) < 10


NOTE = """
from pathlib import Path

def note(rows):
    with (Path(__file__).parent / "calls").open("a") as file:
        file.write(f"{rows}\\n")
"""


def calls(project: Project) -> list[int]:
    return [int(line) for line in (project.root / "calls").read_text().split()]


def pending(client: httpx.Client, kind: str, name: str) -> float | None:
    """How many requests wait to be answered."""
    registry = client.serving.metrics.registry  # type: ignore[attr-defined]
    return registry.get_sample_value("tidemill_pending_requests", {"kind": kind, "name": name})


def aging(policy: StalePolicy) -> Catalog:
    """The small catalog with an objective of half an hour for its weather."""
    [view] = catalog().views
    return small_catalog(views=(replace(view, freshness=Freshness(max_age=timedelta(minutes=30), policy=policy)),))


@pytest.mark.parametrize("policy", [StalePolicy.SERVE, StalePolicy.NULL])
def test_a_value_past_its_objective_says_so_and_is_counted(project: Project, policy: StalePolicy) -> None:
    project.catalogs.add(aging(policy), at=NOW)
    project.reload()
    promote(project, 1)
    project.online.write("weather", weather([("EWR", 1, 10.0)], at=NOW - timedelta(minutes=29)))
    rows = [ROW, ROW | {"origin": "EWR"}]
    nulls = policy is StalePolicy.NULL
    with served(project) as client:
        read = client.post(FEATURES, json={"rows": rows}).json()
        predicted = client.post(PREDICT, json={"rows": rows, "explain": True}).json()["predictions"]
        metrics = client.get("/metrics").text
    assert read["stale"] == {"temp": [True, False]}
    assert read["features"]["temp"] == [None if nulls else 21.5, 10.0]
    assert read["statuses"]["temp"] == ["OUTSIDE_MAX_AGE" if nulls else "PRESENT", "PRESENT"]
    assert [row["stale"] for row in predicted] == [["temp"], []]
    assert predicted[0]["features"]["temp"] == read["features"]["temp"][0]
    assert 'tidemill_feature_values_stale_total{feature="temp",service="delay_v1"} 2.0' in metrics


def test_a_view_that_refuses_old_values_refuses_those_who_ask_for_them_and_nobody_else(project: Project) -> None:
    project.catalogs.add(aging(StalePolicy.REFUSE), at=NOW)
    project.reload()
    promote(project, 1)
    project.online.write("weather", weather([("EWR", 1, 10.0)], at=NOW))
    with served(project) as client, ThreadPoolExecutor(12) as threads:
        with stalled(EmbeddedRedis(project.redis_folder).pid):  # so that they are answered together
            asked = [
                (origin, threads.submit(client.post, path, json={"rows": [ROW | {"origin": origin}]}))
                for origin in ("JFK", "EWR") * 3
                for path in (PREDICT, FEATURES)
            ]
            wait_until(lambda: pending(client, "features", "delay_v1") == pending(client, "predict", "delay") == 6)
        answers = [(origin, one.result(PATIENCE)) for origin, one in asked]
    for origin, answer in answers:
        assert answer.status_code == (503 if origin == "JFK" else 200)
        if origin == "JFK":
            assert answer.json()["type"] == "urn:tidemill:problem:stale-features"
            assert "3,600 s old" in answer.json()["detail"]


def replace_description(version: int):
    [stream] = catalog().streams
    return (replace(stream, kind=f"push{version}"),)


def test_pushed_rows_are_read_at_once(project: Project) -> None:
    with served(project) as client:
        row = {"origin": "EWR", "route": 1, "temp": 12.5, "time": "2013-10-01T11:59:00Z"}
        receipt = client.post("/v1/push/weather_now", json={"rows": [row]}).json()
        assert receipt == {"accepted": 1, "duplicates": 0, "rejected": [], "ignored": []}
        answer = client.post(FEATURES, json={"rows": [ROW | {"origin": "EWR"}]}).json()
        assert answer["features"]["temp"] == [12.5]


def test_pushed_rows_that_do_not_fit_are_refused_and_told_why(project: Project) -> None:
    good = {"origin": "EWR", "route": 1, "temp": 12.5, "time": "2013-10-01T11:59:00Z"}
    with served(project) as client:

        def push(row: dict, **options: object) -> httpx.Response:
            return client.post("/v1/push/weather_now", json={"rows": [row], **options})

        wrong = push(good | {"route": "one"})
        assert (wrong.status_code, wrong.json()["errors"][0]["where"]) == (422, "rows[0].route")
        assert push(good | {"time": "yesterday"}).status_code == 422
        assert push({"origin": "EWR"}).status_code == 422
        assert push(good, to="nowhere").status_code == 400
        ahead = push(good | {"time": "2014-10-01T11:59:00Z"})
        assert ahead.status_code == 422
        assert "push horizon" in ahead.json()["detail"]
        assert client.post("/v1/push/unknown", json={"rows": [good]}).status_code == 404
        assert client.post(FEATURES, json={"rows": [ROW | {"origin": "EWR"}]}).json()["features"]["temp"] == [None]


def test_a_second_server_on_the_same_port_is_a_clear_error(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConflictError, match="Something else listens"):
            run_server(project, host="127.0.0.1", port=taken.getsockname()[1])


_IMPORTS = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from small_live import FEATURES, PREDICT, PUSH, ROW, pushed
from small_project import served
from tidemill.project import open_project
project = open_project(Path(sys.argv[1]))
FEAST = {"features": ["weather:temp"], "entities": {"origin": ["JFK"], "route": [1]}}
with served(project) as client:
    for path, body in (
        (FEATURES, {"rows": [ROW]}),
        (PREDICT, {"rows": [ROW]}),
        (PUSH, {"rows": [pushed("JFK", 1.0)]}),
        ("/get-online-features", FEAST),
        ("/v1/admin/refresh", {}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
project.close()
print(sorted({"feast", "mlflow", "pandas", "nicegui", "dask"} & set(sys.modules)))
"""


def test_reads_predictions_and_pushes_import_neither_feast_nor_mlflow_nor_pandas(project: Project) -> None:
    promote(project, 1)
    folders = Path(small_live.__file__).parent, Path(waiting.__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", _IMPORTS, str(project.root), *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"
