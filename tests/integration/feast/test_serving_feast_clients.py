"""Feast's clients against our server: the same answers as Feast's own server, and the remote online store works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from rides import NOON, at
from small_project import served
from waiting import PATIENCE, wait_until

import tidemill
from tidemill.feast.apply import apply

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
REFERENCES = ["stats:trips_today", "stats:rating", "stats:car", "weather:rain"]
EARNED = {"driver_id": [1], "event_timestamp": [NOON.isoformat()], "earned_1h": [1.0], "trips_1h": [1]}
ENTITIES = {"driver_id": [1, 2], "city": ["ams", "ams"]}


@pytest.fixture
def loaded(store: Any) -> Any:
    store.materialize(start_date=at(-48), end_date=at(0))
    return store


@pytest.fixture
def api(loaded: Any, root: Path) -> Iterator[httpx.Client]:
    """Our server on the repository."""
    project = tidemill.open(root)
    apply(project, at=NOON)
    with served(project) as client:
        yield client
    project.close()


@contextmanager
def feast_server(store: Any) -> Iterator[httpx.Client]:
    """Feast's own server on the same repository, through our online store."""
    from feast.feature_server import get_app

    server = uvicorn.Server(uvicorn.Config(get_app(store, registry_ttl_sec=0), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def remote(api: httpx.Client, root: Path) -> Any:
    """Feast's SDK with nothing but the registry and our address."""
    from feast import FeatureStore

    configuration = (root / "feature_store.yaml").read_text()
    lines = [line for line in configuration.splitlines() if not line.startswith("online_store")]
    lines.append(f"online_store: {{type: remote, path: {str(api.base_url).rstrip('/')}}}")
    folder = root.parent / "remote"
    folder.mkdir()
    text = "\n".join(lines).replace("sqlite:///.tidemill", f"sqlite:///{root}/.tidemill")
    (folder / "feature_store.yaml").write_text(text)
    return FeatureStore(repo_path=str(folder))


@pytest.mark.parametrize(
    "body",
    [
        {"features": REFERENCES, "entities": ENTITIES},
        {"features": REFERENCES, "entities": {"driver_id": [1, 77, 2], "city": ["ber", "rio", "ams"]}},
        {"features": ["stats:rating"], "entities": {"driver_id": [2]}},
        {"features": REFERENCES, "entities": ENTITIES, "full_feature_names": True},
        {"features": ["earned:earned_1h", "earned:trips_1h"], "entities": {"driver_id": [1]}},
    ],
)
def test_the_answer_is_what_feast_s_own_server_gives(api: httpx.Client, loaded: Any, body: dict[str, Any]) -> None:
    with feast_server(loaded) as theirs:
        expected = by_name(theirs.post("/get-online-features", json=body))
    found = by_name(api.post("/get-online-features", json=body))
    assert set(found) == set(expected)
    features = [name for name in found if name not in body["entities"]]
    assert features == [name for name in expected if name not in body["entities"]]
    for name, vector in expected.items():
        # Feast's remote client fails on the text "NaN", so that ours is null.
        assert found[name]["values"] == [None if value == "NaN" else value for value in vector["values"]], name
        assert found[name]["statuses"] == vector["statuses"], name
        if name not in body["entities"]:
            assert found[name]["event_timestamps"] == vector["event_timestamps"], name


def by_name(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return dict(zip(document["metadata"]["feature_names"], document["results"], strict=True))


def test_a_feature_service_is_read_by_its_name_with_request_data(api: httpx.Client) -> None:
    body = {"feature_service": "offer", "entities": {"driver_id": [1], "city": ["ams"], "km": [3.0]}}
    found = by_name(api.post("/get-online-features", json=body))
    assert {name: vector["values"] for name, vector in found.items()} == {
        "driver_id": [1], "city": ["ams"], "km": [3.0],
        "trips_today": [5], "rating": [4.7], "rain": [0.5], "price": [6.0],
    }  # fmt: skip


def test_feast_s_sdk_reads_through_the_remote_store(remote: Any, loaded: Any) -> None:
    rows = [{"driver_id": 1, "city": "ams"}, {"driver_id": 77, "city": "ber"}]
    direct = loaded.get_online_features(features=REFERENCES, entity_rows=rows).to_dict()
    assert remote.get_online_features(features=REFERENCES, entity_rows=rows).to_dict() == direct


def test_feast_s_sdk_reads_a_service_through_the_remote_store(remote: Any) -> None:
    found = remote.get_online_features(
        features=remote.get_feature_service("offer"), entity_rows=[{"driver_id": 1, "city": "ams", "km": 3.0}]
    ).to_dict()
    assert (found["trips_today"], found["rain"], found["price"]) == ([5], [0.5], [6.0])


def test_feast_s_push_reaches_plain_views_and_windows(api: httpx.Client, root: Path) -> None:
    position = {"driver_id": [1, 9], "at": [NOON.isoformat()] * 2, "zone": ["south", "east"]}
    answer = api.post("/push", json={"push_source_name": "positions", "df": position, "to": "online"})
    assert answer.status_code == 200, answer.text
    trip = {"trip_id": ["x"], "driver_id": [9], "at": [NOON.isoformat()], "known": [NOON.isoformat()], "fare": [2.5]}
    assert (
        api.post("/push", json={"push_source_name": "trips", "df": trip, "to": "online_and_offline"}).status_code == 200
    )
    body = {
        "features": ["position:zone", "earned:earned_1h", "earned:trips_1h"],
        "entities": {"driver_id": [9]},
    }
    found = by_name(api.post("/get-online-features", json=body))
    assert [vector["values"] for vector in found.values()] == [[9], ["east"], [2.5], [1]]


def test_feast_s_sdk_writes_through_the_remote_store(remote: Any, api: httpx.Client) -> None:
    import pandas as pd

    frame = pd.DataFrame({"city": ["rio"], "hour": [NOON], "rain": [0.75]})
    remote.write_to_online_store("weather", frame)
    found = by_name(
        api.post("/get-online-features", json={"features": ["weather:rain"], "entities": {"city": ["rio"]}})
    )
    assert found["rain"]["values"] == [0.75]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/get-online-features", {"features": REFERENCES}, 400, "`entities`"),
        ("/get-online-features", {"entities": ENTITIES}, 400, "`feature_service`"),
        ("/get-online-features", {"features": ["stats:nothing"], "entities": ENTITIES}, 404, "nothing"),
        ("/get-online-features", {"feature_service": "none", "entities": ENTITIES}, 404, "none"),
        ("/get-online-features", {"features": REFERENCES, "entities": {"driver_id": [1]}}, 422, "city"),
        (
            "/get-online-features",
            {"features": REFERENCES, "entities": {"driver_id": [1, 2], "city": ["a"]}},
            422,
            "len",
        ),
        ("/push", {"push_source_name": "positions", "df": {"driver_id": [1]}}, 422, "lack"),
        ("/push", {"push_source_name": "positions", "df": {"driver_id": [1], "zone": []}}, 400, "different lengths"),
        ("/push", {"push_source_name": "none", "df": {"driver_id": [1]}}, 404, "none"),
        ("/push", {"push_source_name": "positions", "df": {"driver_id": [1]}, "to": "moon"}, 400, "moon"),
        ("/write-to-online-store", {"feature_view_name": "weather", "df": {"city": ["a"]}}, 400, "event times"),
        ("/write-to-online-store", {"feature_view_name": "earned", "df": EARNED}, 422, "made of windows over events"),
    ],
)
def test_bad_requests_are_told_what_was_expected(
    api: httpx.Client, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    answer = api.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
