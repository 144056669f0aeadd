"""What every request meets first: tokens, limits on size and time, problem documents, metrics, the OpenAPI page."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import waiting
from fastapi.openapi.utils import get_openapi
from pydantic import SecretStr
from small_model import promote
from small_project import NOW, catalog, open_small, served

from tidemill.project import Project
from tidemill_serving.app import create_app
from tidemill_serving.protocol import PatientHttpProtocol

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}
FEATURES = "/v1/features/delay_v1"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that asks for tokens and takes small bodies."""
    project = open_small(
        tmp_path_factory.mktemp("project"),
        api_token=SecretStr("the-api-token"),
        admin_token=SecretStr("the-admin-token"),
        max_body_bytes=10_000,
    )
    project.catalogs.add(catalog(), at=NOW)
    with served(project) as client:
        yield client
    project.close()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", [FEATURES, "/v1/models", "/docs", "/openapi.json", "/metrics", "/v1/features/none"])
def test_without_a_token_nothing_is_answered(guarded: httpx.Client, path: str) -> None:
    for headers in ({}, bearer("wrong"), {"authorization": "Bearer"}, {"authorization": "Basic !!"}):
        answer = guarded.post(path, headers=headers)
        assert answer.status_code == 401
        assert "Bearer" in answer.headers.get_list("www-authenticate")


def test_health_is_open(guarded: httpx.Client) -> None:
    assert guarded.get("/healthz").json() == {"status": "alive"}
    assert guarded.get("/readyz").json()["status"] == "ready"


def test_the_token_opens_the_api_and_browsers_may_send_it_as_a_password(guarded: httpx.Client) -> None:
    basic = base64.b64encode(b"anybody:the-api-token").decode()
    for headers in (bearer("the-api-token"), {"authorization": f"Basic {basic}"}, bearer("the-admin-token")):
        assert guarded.post(FEATURES, json={"rows": [ROW]}, headers=headers).status_code == 200


def test_control_asks_for_the_token_of_its_own(guarded: httpx.Client) -> None:
    assert guarded.get("/v1/admin/status", headers=bearer("the-api-token")).status_code == 401
    status = guarded.get("/v1/admin/status", headers=bearer("the-admin-token")).json()
    assert status["project"] == "small"
    assert guarded.post("/v1/admin/refresh", headers=bearer("the-admin-token")).status_code == 200


def test_a_body_of_a_hundred_megabytes_is_413(guarded: httpx.Client) -> None:
    answer = guarded.post(FEATURES, content=b"x" * 100_000_000, headers=bearer("the-api-token"))
    assert answer.status_code == 413


@pytest.mark.parametrize("path", [FEATURES, "/v1/features", "/v1/push/weather_now", "/push", "/get-online-features"])
def test_a_body_beyond_the_limit_is_413_everywhere(guarded: httpx.Client, path: str) -> None:
    answer = guarded.post(path, content=b"x" * 100_000, headers=bearer("the-api-token"))
    assert answer.status_code == 413
    assert "at most 10,000" in answer.json()["detail"]


def test_a_long_body_of_unknown_length_is_413_and_takes_no_memory(guarded: httpx.Client) -> None:
    answer = guarded.post(FEATURES, content=(b"x" * 65_536 for _ in range(300)), headers=bearer("the-api-token"))
    assert answer.status_code == 413


def test_a_body_that_never_ends_is_408(tmp_path: Path) -> None:
    project = open_small(tmp_path, request_timeout=0.3)
    project.catalogs.add(catalog(), at=NOW)
    with served(project) as client, connection(client) as line:
        line.sendall(b"POST /v1/features/delay_v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        assert line.recv(65_536).startswith(b"HTTP/1.1 408")
    project.close()


def test_connections_that_send_nothing_are_closed(guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientHttpProtocol, "head_timeout", 1.0)
    lines = [connection(guarded) for _ in range(100)]
    lines[0].sendall(b"POST /v1/features/delay_v1 HTTP/1.1\r\nhos")

    def is_answered() -> bool:
        with suppress(httpx.TransportError):  # a busy machine may take long to send what it has connected for
            return guarded.post(FEATURES, json={"rows": [ROW]}, headers=bearer("the-api-token")).status_code == 200
        return False

    waiting.wait_until(is_answered)
    assert [line.recv(1) for line in lines] == [b""] * 100
    for line in lines:
        line.close()


def test_what_is_not_http_is_400(guarded: httpx.Client) -> None:
    with connection(guarded) as line:
        line.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        assert line.recv(65_536).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", FEATURES, 405)])
def test_fastapi_s_own_refusals_are_problem_documents_too(
    guarded: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = guarded.request(method, path, headers=bearer("the-api-token"))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_defect_is_500_without_its_inside(project: Project) -> None:
    with served(project) as client:
        project.online.temperatures = None
        answer = client.post(FEATURES, json={"rows": [ROW]})
        assert answer.status_code == 500
        assert "NoneType" not in answer.text
        cold = client.post("/v1/features", json={"features": ["weather:temp"], "rows": [{"origin": "JFK", "route": 1}]})
        assert cold.status_code == 500
        assert cold.headers["content-type"] == "application/problem+json"
        assert "NoneType" not in cold.text
        project.online.temperatures = {}
        assert client.post(FEATURES, json={"rows": [ROW]}).status_code == 200


def test_metrics_count_answers_predictions_and_what_was_not_present(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        client.post("/v1/models/delay/predict", json={"rows": [ROW, ROW | {"origin": "?"}]})
        client.post(FEATURES, json={})
        client.get("/nowhere")
        lines = client.get("/metrics").text.splitlines()
    for wanted in (
        'tidemill_predictions_total{model="delay",version="1"} 2.0',
        'tidemill_http_requests_total{route="/v1/features/{service}",status="400"} 1.0',
        'tidemill_http_requests_total{route="other",status="404"} 1.0',
        'tidemill_feature_values_not_present_total{feature="temp",service="delay_v1",status="NOT_FOUND"} 1.0',
        'tidemill_model_version{model="delay"} 1.0',
    ):
        assert wanted in lines


def test_openapi_describes_every_path_and_method_that_there_is(project: Project) -> None:
    with served(project) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, operations in paths.items():
            allowed = client.request("DELETE", path.replace("{model}", "delay")).headers["allow"]
            assert {method.strip().lower() for method in allowed.split(",")} == set(operations), path
    routes = get_openapi(title="", version="", routes=create_app(project).routes)["paths"]
    assert {(path, method) for path in routes for method in routes[path]} <= {
        (path, method) for path in paths for method in paths[path]
    }


def test_openapi_asks_for_a_token_only_where_the_server_does(guarded: httpx.Client, project: Project) -> None:
    document = guarded.get("/openapi.json", headers=bearer("the-api-token")).json()
    assert document["security"] == [{"bearer": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    with served(project) as client:
        assert "security" not in client.get("/openapi.json").json()


def test_openapi_has_exact_schemas_that_are_all_defined(project: Project) -> None:
    with served(project) as client:
        document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    row = schemas["DelayRow"]
    assert row["required"] == ["origin", "route", "distance"]
    assert row["properties"]["route"]["type"] == ["integer", "null"]
    assert row["properties"]["origin"]["description"] == "The airport."
    assert set(row["properties"]) == {"origin", "route", "distance", "flight"}
    assert row["additionalProperties"] is False
    assert {"/v1/models/delay/predict", FEATURES, "/v1/push/weather_now"} <= set(document["paths"])
    assert set(references(document)) <= {f"#/components/schemas/{name}" for name in schemas}
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert set(operation["responses"]) > {"200", "500"}
        if "requestBody" in operation:
            assert set(operation["responses"]) > {"400", "404", "413", "422", "429", "503", "504"}


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from [value] if key == "$ref" else references(value)
    elif isinstance(part, list):
        for item in part:
            yield from references(item)


_IMPORTS = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from small_project import open_small, served, wait_until
project = open_small(Path(sys.argv[1]))
with served(project) as client:
    answer = client.post("/v1/models/delay/predict", json={"rows": [{"origin": "JFK", "route": 1, "distance": 1.0}]})
    assert answer.status_code == 200, answer.text
    client.get("/openapi.json")
    client.get("/metrics")
print(sorted({"feast", "mlflow", "pandas", "nicegui", "dask"} & set(sys.modules)))
"""


def test_a_serving_process_imports_neither_feast_nor_mlflow_nor_pandas(project: Project) -> None:
    promote(project, 1)
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            _IMPORTS,
            str(project.root),
            *map(str, (Path(__file__).parent, Path(waiting.__file__).parent)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def connection(client: httpx.Client) -> socket.socket:
    line = socket.create_connection((client.base_url.host, client.base_url.port))
    line.settimeout(waiting.PATIENCE)
    return line
