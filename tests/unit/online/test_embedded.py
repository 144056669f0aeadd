from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import redis
from stalling import stalled
from waiting import PATIENCE

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.embedded import EmbeddedRedis


@pytest.fixture
def embedded(tmp_path: Path):
    servers: list[EmbeddedRedis] = []

    def make(name: str = "redis") -> EmbeddedRedis:
        server = EmbeddedRedis(tmp_path / name, maxmemory="64mb")
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def test_data_survives_a_stop_and_a_start(embedded):
    server = embedded()
    with client(server.ensure_started()) as store:
        store.set("a", 1)
    server.stop()
    assert not server.running
    with client(server.ensure_started()) as store:
        assert store.get("a") == b"1"


def test_data_survives_a_kill(embedded):
    server = embedded()
    with client(server.ensure_started()) as store:
        store.set("a", 1)
    os.kill(server.pid, signal.SIGKILL)
    while server.running:
        time.sleep(0.01)
    with client(server.ensure_started()) as store:
        assert store.get("a") == b"1"


def test_a_server_that_was_killed_is_revived_with_its_data_and_one_that_was_stopped_is_not(embedded):
    server = embedded()
    assert not server.revive()
    with client(server.ensure_started()) as store:
        store.set("a", 1)
    assert not server.revive()
    os.kill(server.pid, signal.SIGKILL)
    while server.running:
        time.sleep(0.01)
    assert server.revive()
    with client(server.url) as store:
        assert store.get("a") == b"1"
    with stalled(server.pid):
        assert not server.revive()
    server.stop()
    assert not server.revive()
    assert not server.running


def test_starts_at_the_same_time_make_one_server(embedded):
    server = embedded()
    with ThreadPoolExecutor(8) as pool:
        urls = set(pool.map(lambda _: server.ensure_started(), range(8)))
    assert len(urls) == 1
    with client(urls.pop()) as store:
        assert store.info("server")["process_id"] == server.pid


def test_a_server_that_stands_still_for_a_while_is_waited_for_and_not_replaced(embedded, monkeypatch):
    monkeypatch.setattr("tidemill.online.embedded._ANSWER_SECONDS", 0.05)
    server = embedded()
    url, before = server.ensure_started(), server.pid
    with ThreadPoolExecutor(1) as thread:
        with stalled(before):
            starting = thread.submit(server.ensure_started)
            assert not wait([starting], timeout=0.5).done
        assert starting.result(PATIENCE) == url
    assert server.pid == before


def test_two_projects_side_by_side_do_not_meet(embedded):
    with client(embedded("one").ensure_started()) as one, client(embedded("two").ensure_started()) as two:
        one.set("a", 1)
        assert two.get("a") is None


def test_the_server_outlives_the_process_that_started_it(embedded, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from tidemill.online.embedded import EmbeddedRedis;"
        "EmbeddedRedis(Path(sys.argv[1])).ensure_started()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "redis")], check=True)
    assert embedded().running


def test_only_this_user_reaches_the_socket_and_no_port_is_open(embedded):
    server = embedded()
    with client(server.ensure_started()) as store:
        assert store.config_get("port") == {"port": "0"}
    assert server.socket.stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_a_socket_gets_a_short_one(embedded):
    server = embedded("x" * 120)
    with client(server.ensure_started()) as store:
        assert store.ping()
    assert len(str(server.socket)) <= 100
    server.stop()
    assert not server.socket.exists()


def test_traces_of_a_dead_server_do_not_stop_a_start(embedded):
    server = embedded()
    server.ensure_started()
    server.stop()
    server.socket.touch()
    (server.socket.parent / "redis.pid").write_text(str(os.getpid()))
    with client(server.ensure_started()) as store:
        assert store.ping()


def test_a_log_that_has_become_long_is_begun_anew_by_the_next_start(embedded, tmp_path: Path):
    server, log = embedded(), tmp_path / "redis" / "redis.log"
    server.ensure_started()
    server.stop()
    os.truncate(log, 20_000_001)
    server.ensure_started()
    assert 0 < log.stat().st_size < 20_000_000
    assert log.with_name("redis.log.1").stat().st_size == 20_000_001


def test_a_broken_data_file_is_named(embedded, tmp_path: Path):
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(b"not a command at all\r\n" * 10)
    with pytest.raises(OnlineStoreUnavailableError, match=r"redis\.log"):
        embedded().ensure_started()


def test_stopping_what_never_ran_is_nothing(embedded):
    embedded().stop()
