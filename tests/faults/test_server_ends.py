"""A server that is killed has logged whatever it answered; one that is told to end answers whatever it was asked."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from small_live import PREDICT, ROW, live
from small_model import promoted_with_redis
from small_project import NOW
from stalling import stalled
from waiting import PATIENCE, wait_until

from tidemill.online.embedded import EmbeddedRedis
from tidemill.predictions import PredictionLog
from tidemill.project import Project

PENDING = 'tidemill_pending_requests{kind="predict",name="delay"} 1.0'


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """The small project, promoted."""
    with promoted_with_redis(tmp_path, redis_timeout=PATIENCE, request_timeout=PATIENCE) as opened:
        yield opened


@dataclass
class Load:
    """Clients that ask again and again, each on a connection that it keeps, until the server is gone."""

    url: str
    answered: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def run(self, clients: int, *, meanwhile: Callable[[], None]) -> None:
        with ThreadPoolExecutor(clients) as threads:
            running = [threads.submit(self._ask_on, 1 + number % 3) for number in range(clients)]
            wait_until(lambda: len(self.answered) > 100)
            meanwhile()
            for client in running:
                client.result(PATIENCE)

    def _ask_on(self, rows: int) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
            while True:
                try:
                    answer = client.post(PREDICT, json={"rows": [ROW] * rows})
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.lost.append(repr(error))
                    return
                assert answer.status_code == 200, answer.text
                self.answered += [row["prediction_id"] for row in answer.json()["predictions"]]


def logged(project: Project) -> list[str]:
    return PredictionLog(project.state / "predictions").scan("delay")["prediction_id"].to_list()


def test_a_killed_server_has_logged_every_prediction_it_answered(project: Project) -> None:
    with live(project, head_timeout=PATIENCE) as server:
        load = Load(server.url)
        load.run(8, meanwhile=server.process.kill)
    names = logged(project)
    assert set(load.answered) <= set(names)
    assert len(set(names)) == len(names)
    log = PredictionLog(project.state / "predictions").scan("delay")
    assert log["at"].unique().to_list() == [NOW]


def test_a_server_told_to_end_under_load_loses_no_request(project: Project) -> None:
    with live(project, head_timeout=PATIENCE) as server:
        load = Load(server.url)
        load.run(8, meanwhile=server.process.terminate)
        assert server.process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)
    assert load.lost == []
    assert sorted(load.answered) == sorted(logged(project))


def test_a_request_that_takes_long_is_answered_before_the_server_ends(project: Project) -> None:
    with live(project, head_timeout=PATIENCE) as server, ThreadPoolExecutor(1) as thread:
        assert httpx.post(server.url + PREDICT, json={"rows": [ROW]}, timeout=PATIENCE).status_code == 200
        with stalled(EmbeddedRedis(project.redis_folder).pid):
            slow = thread.submit(httpx.post, server.url + PREDICT, json={"rows": [ROW]}, timeout=PATIENCE)
            wait_until(lambda: PENDING in httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text)
            server.process.terminate()
            wait_until(lambda: httpx.get(f"{server.url}/health", timeout=PATIENCE).status_code == 503)
            assert not slow.done()
        answer = slow.result(PATIENCE)
        assert server.process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
    assert answer.json()["predictions"][0]["prediction_id"] in logged(project)
