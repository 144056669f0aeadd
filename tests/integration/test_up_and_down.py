"""`tidemill up`, `status` and `down` on real processes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from ports import free_port
from small_project import NOW, catalog
from waiting import PATIENCE, PATIENT, wait_until

from tidemill.cli.up import look, read_running, start_all, stop_all
from tidemill.errors import ConfigurationError, ConflictError, NotAppliedError, UnavailableError
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.resp import RespClient
from tidemill.project import Project, open_project


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)  # which the parts that are started inherit


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "feature_store.yaml").write_text("project: small\n")
    opened = open_project(tmp_path)
    opened.catalogs.add(catalog(models=(), on_demand_views=(), services=()), at=NOW)
    yield opened
    stop_all(opened)
    opened.close()


@pytest.fixture
def port() -> int:
    return free_port()


def states(project: Project) -> dict[str, str]:
    return {part.name: part.state for part in look(project)}


def test_up_starts_every_part_and_down_ends_them(project: Project, port: int) -> None:
    assert states(project) == {"redis": "stopped", "api": "stopped", "scheduler": "stopped", "catalog": "applied"}
    running = start_all(project, port=port, dashboard=False)
    assert httpx.get(f"{running.url}/readyz", timeout=PATIENCE).status_code == 200
    assert states(project) == {
        "redis": "running", "api": "running", "scheduler": "running", "catalog": "applied", "readiness": "ready",
    }  # fmt: skip
    assert sorted(stop_all(project)) == ["api", "redis", "scheduler"]
    assert states(project)["api"] == "stopped"
    assert all(part.process() is None for part in running.parts)
    assert stop_all(project) == []


def test_a_second_up_is_a_conflict_that_says_where_the_first_is(project: Project, port: int) -> None:
    start_all(project, port=port, dashboard=False)
    with pytest.raises(ConflictError, match=f"running already at http://127.0.0.1:{port}"):
        start_all(project, port=port, dashboard=False)
    assert states(project)["readiness"] == "ready"


def test_up_before_the_first_apply_says_so_at_once_and_starts_nothing(tmp_path: Path, port: int) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: small\n")
    with closing(open_project(tmp_path)) as bare:
        with pytest.raises(NotAppliedError, match="Run `tidemill apply` first"):
            start_all(bare, port=port, dashboard=False)
        assert stop_all(bare) == []


def test_consumers_that_the_settings_name_run_beside_the_rest(tmp_path: Path, port: int) -> None:
    redis = EmbeddedRedis(tmp_path / ".tidemill" / "redis")
    (tmp_path / "feature_store.yaml").write_text(
        f'project: small\ntidemill:\n  consume: {{weather_now: "{redis.url}?stream=departures"}}\n'
    )
    project = open_project(tmp_path)
    project.catalogs.add(catalog(models=(), on_demand_views=(), services=()), at=NOW)
    try:
        start_all(project, port=port, dashboard=False)
        assert states(project)["consumer of weather_now"] == "running"
        client = RespClient(redis.url)
        client.call("XADD", "departures", "*", "json", "this is no event")
        wait_until(lambda: client.call("XLEN", "departures:set-aside") == 1)
        assert "consumer of weather_now" in stop_all(project)
    finally:
        stop_all(project)
        project.close()


def test_a_consumer_that_cannot_be_is_refused_before_anything_is_started(tmp_path: Path, port: int) -> None:
    (tmp_path / "feature_store.yaml").write_text(
        'project: small\ntidemill: {consume: {weather_no: "kafka://localhost/topic"}}\n'
    )
    project = open_project(tmp_path)
    project.catalogs.add(catalog(models=(), on_demand_views=(), services=()), at=NOW)
    with pytest.raises(ConfigurationError, match=r"`consume: weather_no` in the settings is wrong: .*Did you mean"):
        start_all(project, port=port, dashboard=False)
    assert read_running(project) is None
    project.close()


def test_after_everything_was_killed_up_works_again(project: Project, port: int) -> None:
    for part in start_all(project, port=port, dashboard=False).parts:
        os.kill(part.pid, signal.SIGKILL)
        wait_until(lambda part=part: part.process() is None)
    assert states(project)["api"] == "ended"
    start_all(project, port=port, dashboard=False)
    assert states(project)["readiness"] == "ready"


def test_a_part_that_does_not_come_up_is_told_with_its_last_words_and_nothing_is_left_running(
    project: Project,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UnavailableError, match="Something else listens"):
            start_all(project, port=taken.getsockname()[1], dashboard=False)
    assert read_running(project) is None
    assert states(project)["api"] == "stopped"


def test_up_does_not_take_another_projects_api_on_its_port_for_its_own(
    project: Project, tmp_path_factory: pytest.TempPathFactory, port: int
) -> None:
    start_all(project, port=port, dashboard=False)
    folder = tmp_path_factory.mktemp("second")
    (folder / "feature_store.yaml").write_text("project: second\n")
    second = open_project(folder)
    second.catalogs.add(catalog(models=(), on_demand_views=(), services=()), at=NOW)
    with pytest.raises(UnavailableError, match="Something else listens"):
        start_all(second, port=port, dashboard=False)
    stop_all(second)
    second.close()
