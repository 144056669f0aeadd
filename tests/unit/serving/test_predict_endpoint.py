"""POST /v1/models/{model}/predict reads, predicts, logs and answers; in that order."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from small_model import make_artifact, promote
from small_project import NOW, catalog, open_small, served, wait_until
from waiting import PATIENCE

from tidemill.models.artifact import ModelArtifact
from tidemill.predictions import PredictionBatch
from tidemill.predictions.segment import Segment
from tidemill.project import Project
from tidemill_serving.models import warm_up

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}


def predict(client: httpx.Client, rows: list[dict], **options: object) -> httpx.Response:
    return client.post("/v1/models/delay/predict", json={"rows": rows, **options})


def test_an_answer_has_the_version_the_prediction_and_the_status_of_every_feature(project: Project) -> None:
    artifact = promote(project, 1)
    with served(project) as client:
        answer = predict(client, [ROW | {"flight": "B6-1"}, ROW | {"origin": "LGA"}]).json()
    expected = artifact.predict({"temp": [21.5, None], "hours": [2.0, 2.0]}).tolist()
    assert (answer["model"], answer["version"]) == ("delay", 1)
    assert answer["at"] == "2013-10-01T12:00:00Z"
    assert [row["prediction"] for row in answer["predictions"]] == expected
    assert [row["id"] for row in answer["predictions"]] == ["B6-1", None]
    assert answer["predictions"][1]["statuses"] == {"temp": "NULL_VALUE", "hours": "PRESENT"}
    assert "features" not in answer["predictions"][0]


def test_the_vector_comes_when_asked_for(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        answer = predict(client, [ROW], explain=True).json()
    assert answer["predictions"][0]["features"] == {"temp": 21.5, "hours": 2.0}


def test_every_answer_is_in_the_log_with_what_it_was_computed_from(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        answer = predict(client, [ROW | {"flight": "B6-1"}, ROW | {"origin": "nowhere"}]).json()
    log = project.predictions.scan("delay")
    assert log["prediction_id"].to_list() == [row["prediction_id"] for row in answer["predictions"]]
    assert log["prediction"].to_list() == [row["prediction"] for row in answer["predictions"]]
    assert log["id"].to_list() == ["B6-1", None]
    assert log["at"].to_list() == [NOW, NOW]
    assert log["version"].to_list() == [1, 1]
    assert log["service"].to_list() == ["delay_v1"] * 2
    assert log["catalog_digest"].to_list() == [project.catalog.digest] * 2
    first = log.row(0, named=True)
    assert json.loads(first["keys"]) == {"origin": "JFK", "route": 1}
    assert json.loads(first["request"]) == {"distance": 1000.0}
    assert json.loads(first["features"]) == {"temp": 21.5, "hours": 2.0}
    assert json.loads(first["statuses"]) == {"temp": "PRESENT", "hours": "PRESENT"}
    assert json.loads(log["statuses"][1])["temp"] == "NOT_FOUND"


def test_what_cannot_be_logged_is_not_answered(project: Project) -> None:
    promote(project, 1)
    (project.state).mkdir(exist_ok=True)
    (project.state / "predictions").write_text("a file where the folder should be")
    with served(project) as client:
        answer = predict(client, [ROW])
    assert answer.status_code == 503
    assert "prediction log" in answer.json()["detail"]


def test_a_disk_that_has_been_slow_is_left_to_the_thread_of_the_models_until_it_is_quick_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(project, 1)
    pauses, threads = [0.0, 0.05], []
    append = project.predictions.append_batch

    def slow_append(batch: PredictionBatch) -> None:
        threads.append(threading.current_thread().name.startswith("tidemill-model"))
        time.sleep(pauses.pop(0) if pauses else 0.0)
        append(batch)

    monkeypatch.setattr(project.predictions, "append_batch", slow_append)
    with served(project) as client:
        predict(client, [ROW])
        wait_until(lambda: not pauses or predict(client, [ROW]).status_code != 200)
        predict(client, [ROW])
        assert threads[-1]
        wait_until(lambda: predict(client, [ROW]).status_code == 200 and not threads[-1])


def test_a_disk_that_hangs_keeps_nobody_waiting_but_those_whose_predictions_it_has_to_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = open_small(tmp_path, request_timeout=0.5, prediction_log_thread=True)
    project.catalogs.add(catalog(), at=NOW)
    promote(project, 1)
    mended, write = threading.Event(), Segment.write

    def hang(segment: Segment, lines: bytes) -> None:
        mended.wait(PATIENCE)
        write(segment, lines)

    monkeypatch.setattr(Segment, "write", hang)
    with served(project) as client:
        try:
            assert predict(client, [ROW]).status_code == 504
            wait_until(lambda: client.post("/v1/features/delay_v1", json={"rows": [ROW]}).status_code == 200)
            wait_until(lambda: "prediction_log" in client.get("/readyz").json()["parts"])
            meter = client.serving.metrics.registry.get_sample_value  # type: ignore[attr-defined]
            assert meter("tidemill_prediction_log_waiting_seconds") > 0.5
        finally:
            mended.set()
        wait_until(lambda: predict(client, [ROW]).status_code == 200)
        wait_until(lambda: client.get("/readyz").status_code == 200)
    project.close()


def test_many_rows_are_left_to_the_thread_of_the_models(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(project, 1)
    threads = []
    append = project.predictions.append_batch

    def noted_append(batch: PredictionBatch) -> None:
        threads.append(threading.current_thread().name)
        append(batch)

    monkeypatch.setattr(project.predictions, "append_batch", noted_append)
    with served(project) as client:
        assert predict(client, [ROW] * 65).status_code == 200
    assert [name.startswith("tidemill-model") for name in threads] == [True]


def test_a_promotion_is_taken_up_without_a_restart(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        assert predict(client, [ROW]).json()["version"] == 1
        second = promote(project, 2)
        wait_until(lambda: predict(client, [ROW]).json()["version"] == 2)
        assert predict(client, [ROW]).json()["predictions"][0]["prediction"] == pytest.approx(
            second.predict({"temp": [21.5], "hours": [2.0]})[0]
        )
        promote(project, 1)
        wait_until(lambda: predict(client, [ROW]).json()["version"] == 1)


def test_a_damaged_version_leaves_the_old_one_serving(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        second = promote(project, 2)
        assert second.folder is not None
        (second.folder / "model.skops").write_bytes(b"damaged")
        third = promote(project, 3)
        assert third.folder is not None
        (third.folder / "model.skops").write_bytes(b"damaged")
        wait_until(lambda: client.serving.shelf.failures)  # type: ignore[attr-defined]
        answer = predict(client, [ROW])
        assert answer.status_code == 200
        assert "damaged" in client.get("/v1/models/delay").json()["trouble"]


def test_a_model_that_was_never_promoted_is_503_and_an_unknown_one_404(project: Project) -> None:
    with served(project) as client:
        never = predict(client, [ROW])
        unknown = client.post("/v1/models/dely/predict", json={"rows": [ROW]})
    assert (never.status_code, unknown.status_code) == (503, 404)
    assert "tidemill train delay" in never.json()["hint"]
    assert "Did you mean 'delay'?" in unknown.json()["hint"]


def test_a_model_whose_features_are_gone_says_so(project: Project) -> None:
    promote(project, 1, artifact=make_artifact(1, features=("temp", "humidity")))
    with served(project) as client:
        answer = predict(client, [ROW])
    assert answer.status_code == 503
    assert "humidity" in answer.json()["detail"]


def test_missing_keys_and_wrong_types_are_refused_and_nothing_is_logged(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        assert predict(client, [{"origin": "JFK", "distance": 1.0}]).status_code == 422
        assert predict(client, [ROW, ROW | {"route": "one"}]).status_code == 422
        assert predict(client, [ROW | {"flight": [1]}]).status_code == 422
    assert project.predictions.scan().is_empty()


def test_requests_that_arrive_together_share_one_read(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        predict(client, [ROW])
        project.online.reads.clear()
        gate = asyncio.Event()
        project.online.gate = gate.wait
        with ThreadPoolExecutor(20) as threads:
            waiting = [threads.submit(predict, client, [ROW | {"flight": str(index)}]) for index in range(20)]
            wait_until(lambda: client.serving.metrics.registry.get_sample_value(  # type: ignore[attr-defined]
                "tidemill_pending_requests", {"kind": "predict", "name": "delay"}) == 20)  # fmt: skip
            project.online.gate = None
            client.serving._loop.call_soon_threadsafe(gate.set)  # type: ignore[attr-defined]
            answers = [future.result(PATIENCE).json() for future in waiting]
    assert [answer["predictions"][0]["id"] for answer in answers] == [str(index) for index in range(20)]
    assert sum(project.online.reads) == 20
    assert len(project.online.reads) <= 4


def test_beyond_the_queue_requests_are_turned_away_with_429(tmp_path: Path) -> None:
    project = open_small(tmp_path, max_pending=2)
    project.catalogs.add(catalog(), at=NOW)
    promote(project, 1)
    with served(project) as client:
        gate = asyncio.Event()
        project.online.gate = gate.wait
        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(predict, client, [ROW]) for _ in range(2)]
            wait_until(lambda: client.serving.metrics.registry.get_sample_value(  # type: ignore[attr-defined]
                "tidemill_pending_requests", {"kind": "predict", "name": "delay"}) == 2)  # fmt: skip
            refused = predict(client, [ROW])
            client.serving._loop.call_soon_threadsafe(gate.set)  # type: ignore[attr-defined]
            assert [future.result(PATIENCE).status_code for future in waiting] == [200, 200]
    project.close()
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"


def test_an_answer_that_is_not_ready_in_time_is_504_and_the_server_goes_on(tmp_path: Path) -> None:
    project = open_small(tmp_path, request_timeout=0.2)
    project.catalogs.add(catalog(), at=NOW)
    promote(project, 1)
    with served(project) as client:
        gate = asyncio.Event()
        project.online.gate = gate.wait
        assert predict(client, [ROW]).status_code == 504
        project.online.gate = None
        client.serving._loop.call_soon_threadsafe(gate.set)  # type: ignore[attr-defined]
        wait_until(lambda: predict(client, [ROW]).status_code == 200)
    project.close()


def test_several_models_share_a_process_and_each_answers_for_itself(tmp_path: Path) -> None:
    project = open_small(tmp_path)
    [delay] = catalog().models
    models = [replace(delay, name=name) for name in ("delay", "other", "third")]
    project.catalogs.add(catalog(models=tuple(models)), at=NOW)
    artifacts = {"delay": promote(project, 1), "other": promote(project, 4, model="other")}
    with served(project) as client, ThreadPoolExecutor(8) as threads:
        listed = client.get("/v1/models").json()["models"]
        assert [(model["name"], model["version"]) for model in listed] == [("delay", 1), ("other", 4), ("third", None)]
        paths = [f"/v1/models/{name}/predict" for name in ("delay", "other", "third")] * 10
        answers = list(threads.map(lambda path: client.post(path, json={"rows": [ROW]}), paths))
    for path, answer in zip(paths, answers, strict=True):
        name = path.split("/")[3]
        if name == "third":
            assert answer.status_code == 503
            continue
        assert (answer.json()["model"], answer.json()["version"]) == (name, {"delay": 1, "other": 4}[name])
        [expected] = artifacts[name].predict({"temp": [21.5], "hours": [2.0]}).tolist()
        assert answer.json()["predictions"][0]["prediction"] == expected
    assert sorted(project.predictions.scan()["model"].to_list()) == ["delay"] * 10 + ["other"] * 10
    project.close()


def test_a_server_is_ready_only_when_its_models_have_been_warmed_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(project, 1)
    warm, warming = threading.Event(), threading.Event()

    def wait_for_warmth(artifact: ModelArtifact) -> None:
        warming.set()
        assert warm.wait(PATIENCE)
        warm_up(artifact)

    monkeypatch.setattr("tidemill_serving.models.warm_up", wait_for_warmth)
    with served(project, wait=False) as client:
        assert warming.wait(PATIENCE)
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        assert predict(client, [ROW]).status_code == 503
        warm.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert predict(client, [ROW]).status_code == 200


def test_a_shutdown_answers_what_was_begun(project: Project) -> None:
    promote(project, 1)
    gate = threading.Event()

    async def wait_for_gate() -> None:
        await asyncio.to_thread(gate.wait)

    with ThreadPoolExecutor(1) as threads:
        with served(project) as client:
            project.online.gate = wait_for_gate
            begun = threads.submit(
                httpx.post, f"{client.base_url}/v1/models/delay/predict", json={"rows": [ROW]}, timeout=PATIENCE
            )
            wait_until(lambda: client.serving.metrics.registry.get_sample_value(  # type: ignore[attr-defined]
                "tidemill_pending_requests", {"kind": "predict", "name": "delay"}) == 1)  # fmt: skip
            threading.Timer(0.5, gate.set).start()
        assert begun.result(PATIENCE).status_code == 200
    assert project.predictions.scan().height == 1


def test_a_request_that_is_sent_again_under_its_name_counts_once_in_the_log(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        first = predict(client, [ROW, ROW], request_id="order-7")
        second = predict(client, [ROW, ROW], request_id="order-7")
        predict(client, [ROW])
        refused = [predict(client, [ROW], request_id=name).status_code for name in ("", "a b", "x" * 65, 5)]
    assert [row["prediction_id"] for row in first.json()["predictions"]] == ["order-7-0", "order-7-1"]
    assert second.json() == first.json()
    names = project.predictions.scan("delay")["prediction_id"].to_list()
    assert names[:2] == ["order-7-0", "order-7-1"]
    assert len(names) == 3
    assert refused == [400] * 4
