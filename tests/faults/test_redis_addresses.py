"""Where Redis may be: behind TLS, a password, Sentinels; and what is said of a Redis that cannot be used."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ports import free_port
from redis_servers import Server, running, tls_door, watched
from small_live import FEATURES, PREDICT, PUSH, ROW, live, open_with_redis, pushed, weather
from small_model import promote
from small_project import served
from waiting import PATIENCE, wait_for_end_of, wait_until

from tidemill.errors import ConfigurationError, OnlineStoreUnavailableError
from tidemill.online.redis_address import connect
from tidemill.online.resp import RespClient, Script
from tidemill.project import Project

PASSWORD = "p@ss:w/rd %"  # noqa: S105 - of a server that lives for a test
BUS = 10_000  # how far above its port a member of a cluster listens for the others
ENCODED = "p%40ss%3Aw%2Frd%20%25"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(Server(folder=tmp_path / "redis")) as server:
        yield server


def opened(root: Path, url: str, **settings: object) -> Project:
    folder = root / "project"
    folder.mkdir()
    return open_with_redis(folder, redis_url=url, **settings)


def works(project: Project) -> None:
    """Written, read both ways, pushed and predicted from."""
    project.online.write("weather", weather([("JFK", 1, 21.5)]))
    assert project.online.read("delay_v1", [ROW]).values["temp"] == [21.5]
    promote(project, 1)
    with served(project) as client:
        assert client.post(FEATURES, json={"rows": [ROW]}).json()["features"]["temp"] == [21.5]
        assert client.post(PUSH, json={"rows": [pushed("JFK", 22.5)]}).json()["accepted"] == 1
        answer = client.post(PREDICT, json={"rows": [ROW] * 50, "explain": True}).json()
        assert [row["features"]["temp"] for row in answer["predictions"]] == [22.5] * 50
        assert client.get("/readyz").status_code == 200
    project.close()


def test_redis_over_tls_with_user_and_password(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        client.acl_setuser("tide", enabled=True, passwords=[f"+{PASSWORD}"], categories=["+@all"], keys=["*"])
        client.config_set("requirepass", "another")
    with tls_door(server, tmp_path) as (port, certificate):
        works(opened(tmp_path, f"rediss://tide:{ENCODED}@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"))


def test_a_certificate_that_is_not_trusted_is_said_so(server: Server, tmp_path: Path) -> None:
    with tls_door(server, tmp_path) as (port, _certificate):
        project = opened(tmp_path, f"rediss://127.0.0.1:{port}/0")
        with pytest.raises(OnlineStoreUnavailableError, match="certificate verify failed"):
            project.online.ping()
        project.close()


def test_concurrent_reads_over_tls_get_their_own_answers_though_some_give_up(server: Server, tmp_path: Path) -> None:
    async def read(project: Project) -> None:
        rows = [{"origin": f"A{number}", "route": 1, "distance": 1.0} for number in range(60)]
        tasks = [asyncio.ensure_future(project.online.aread("delay_v1", [row])) for row in rows]
        await asyncio.sleep(0.002)
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(found):
            if not isinstance(answer, asyncio.CancelledError):
                assert answer.values["temp"] == [float(number)]  # type: ignore[union-attr]
        await project.online.aclose()

    with tls_door(server, tmp_path) as (port, certificate):
        project = opened(tmp_path, f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
        project.online.write("weather", weather([(f"A{number}", 1, float(number)) for number in range(60)]))
        asyncio.run(read(project))
        project.close()


@pytest.mark.parametrize("login", ["", "tide:wrong@", ":wrong@"])
def test_a_wrong_password_is_said_so_and_never_shown(server: Server, tmp_path: Path, login: str) -> None:
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
    project = opened(tmp_path, f"redis://{login}127.0.0.1:{server.port}/0")
    with served(project) as client:
        answer = client.post(FEATURES, json={"rows": [ROW]})
        pushing = client.post(PUSH, json={"rows": [pushed("JFK", 1.0)]})
    project.close()
    for refused in (answer, pushing):
        assert refused.status_code == 503
        assert "Redis refused us" in refused.json()["detail"]
        assert "Check user and password" in refused.json()["hint"]
        assert ":wrong" not in refused.text


def test_a_user_needs_the_rights_that_are_asked_for_and_no_others(server: Server, tmp_path: Path) -> None:
    rights = {"enabled": True, "passwords": ["+hush"], "keys": ["*"]}
    with server.client() as client:
        client.acl_setuser("reader", **rights, categories=["+@read", "+@connection"])
        client.acl_setuser(
            "tide",
            **rights,
            categories=["+@read", "+@write", "+@scripting", "+@connection"],
            commands=["+info", "+wait", "-restore"],
        )
    works(opened(tmp_path, f"redis://tide:hush@127.0.0.1:{server.port}/0"))
    client = RespClient(f"redis://reader:hush@127.0.0.1:{server.port}/0", timeout=PATIENCE)
    with pytest.raises(OnlineStoreUnavailableError, match="'script' command") as refused:
        Script("return 1").load(client)
    client.close()
    assert "+@scripting" in str(refused.value.hint)


def test_a_member_of_a_cluster_is_refused_with_what_to_do(tmp_path: Path) -> None:
    member = Server(folder=tmp_path / "redis", options=("--cluster-enabled", "yes"), port=free_port(and_above=BUS))
    with running(member) as server:
        project = opened(tmp_path, f"redis://127.0.0.1:{server.port}/0")
        for slots in ((), range(16_384)):
            with server.client() as client:
                if slots:
                    client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                    wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
            with served(project) as http:
                assert "Redis Cluster" in http.get("/readyz").json()["parts"]["online_store"]["trouble"]
                refused = http.post(PUSH, json={"rows": [pushed("JFK", 1.0), pushed("LGA", 1.0)]})
                assert refused.status_code == 503
                assert "Redis Cluster" in refused.json()["detail"]
                assert "Sentinel" in refused.json()["hint"]
        project.close()


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost",
        "redis://host:port",
        "redis+sentinel://",
        "redis+sentinel://host/name?db=first",
        "redis://h?x=1",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_asked(address: str) -> None:
    with pytest.raises(ConfigurationError, match="not the address of a Redis"):
        connect(address, timeout=1.0).connection_pool.make_connection()


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel"])
@pytest.mark.parametrize("mark", ["/", "#", "?"])
@pytest.mark.parametrize("password", ["hush{}hush", "77{}hush"])
def test_a_password_that_is_not_percent_encoded_is_refused_and_never_shown(
    scheme: str, mark: str, password: str
) -> None:
    with pytest.raises(ConfigurationError, match="%2F for /") as refused:
        connect(f"{scheme}://tide:{password.format(mark)}@localhost:6379/0", timeout=1.0)
    assert "hush" not in str(refused.value)
    assert "77" not in str(refused.value)


def test_sentinels_that_do_not_answer_are_given_up_on_in_time(tmp_path: Path) -> None:
    project = opened(tmp_path, "redis+sentinel://127.0.0.1:1,127.0.0.1:2/tide")
    with served(project) as client:
        refused = client.post(FEATURES, json={"rows": [ROW]})
    project.close()
    assert refused.status_code == 503
    assert refused.json()["detail"] == "None of the Sentinels answers with a master of that name."


def answered(url: str, rows: list[dict[str, object]]) -> dict[str, Any]:
    """Asked again while it is refused: on a busy machine the Sentinel may take the new master for dead for a while."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        answers.append(httpx.post(url, json={"rows": rows}, timeout=PATIENCE))
        assert answers[-1].status_code in (200, 503), answers[-1].text
        return answers[-1].status_code == 200

    wait_until(is_answered)
    return answers[-1].json()


def test_a_failover_loses_nothing_that_was_acknowledged_and_is_recovered_from(tmp_path: Path) -> None:
    with watched(tmp_path, replicas=2) as redis_servers:
        project = opened(tmp_path, redis_servers.address)
        promote(project, 1)
        acknowledged: list[str] = []
        statuses: set[int] = set()
        stop = threading.Event()
        with live(project) as server:

            def push(writer: int) -> None:
                with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                    for number in range(100_000):
                        origin = f"{writer}-{number}"
                        status = client.post(PUSH, json={"rows": [pushed(origin, 1.5)]}).status_code
                        statuses.add(status)
                        if status == 200:
                            acknowledged.append(origin)
                        if stop.is_set():
                            return

            writers = [threading.Thread(target=push, args=(writer,)) for writer in range(4)]
            for writer in writers:
                writer.start()
            wait_until(lambda: len(acknowledged) > 200)
            before = redis_servers.master()
            before.kill()
            killed_at = len(acknowledged)
            wait_until(lambda: len(acknowledged) > killed_at + 200)
            stop.set()
            wait_for_end_of(*writers)
            assert redis_servers.master() is not before
            rows = [{"origin": origin, "route": 1, "distance": 1.0} for origin in acknowledged]
            answer = answered(server.url + FEATURES, rows[:10_000])
            assert answer["statuses"]["temp"] == ["PRESENT"] * len(rows[:10_000])
            assert answered(server.url + PREDICT, [ROW])["predictions"]
        assert statuses == {200, 503}
        project.close()


def test_sentinels_are_left_as_soon_as_they_have_said_where_the_master_is(tmp_path: Path) -> None:
    with watched(tmp_path, replicas=1) as redis_servers:
        project = opened(tmp_path, redis_servers.address)
        with served(project) as client:
            wait_until(lambda: client.post(PUSH, json={"rows": [pushed("JFK", 1.5)]}).status_code == 200)
            assert client.post(FEATURES, json={"rows": [ROW]}).status_code == 200
            wait_until(lambda: redis_servers.clients_of_sentinel() == 1)  # who asks
        project.close()


def test_without_enough_replicas_behind_sentinel_a_write_is_not_acknowledged(tmp_path: Path) -> None:
    with watched(tmp_path, replicas=1) as redis_servers:
        project = opened(tmp_path, redis_servers.address, redis_timeout=4.0)
        with served(project) as client:
            wait_until(lambda: client.post(PUSH, json={"rows": [pushed("JFK", 1.5)]}).status_code == 200)
            redis_servers.servers[1].kill()

            def lacks_a_replica() -> bool:
                """Refused for that; on a machine that stands still for a moment it may be for Redis's silence first."""
                refused = client.post(PUSH, json={"rows": [pushed("LGA", 1.5)]})
                assert refused.status_code == 503
                return "`redis_replicas`" in refused.json()["hint"]

            wait_until(lacks_a_replica)
            wait_until(lambda: client.post(FEATURES, json={"rows": [ROW]}).status_code == 200)
        project.close()
