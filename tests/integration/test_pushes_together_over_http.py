"""Events that arrive over HTTP while Redis works on others go together; each request is answered for its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from departures import WINDOW, departures
from own_redis import closed_with_redis
from small_live import open_with_redis
from small_project import NOW, served
from stalling import stalled
from waiting import wait_until

from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.keys import key_layout
from tidemill.online.tile_log import TileLog
from tidemill.project import Project

PUSH = "/v1/push/departed"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with closed_with_redis(open_with_redis(tmp_path, applied=departures("small"))) as opened:
        opened.redis_address()
        yield opened


def departure(number: int) -> dict[str, Any]:
    at = NOW - timedelta(seconds=number * 40)  # some of them over an hour ago
    return {
        "origin": f"O{number % 5}", "carrier": f"C{number % 2}", "event": at.isoformat(), "delay": number % 7,
        "id": str(number),
    }  # fmt: skip


def push(client: httpx.Client, *rows: dict[str, Any]) -> httpx.Response:
    return client.post(PUSH, json={"rows": rows})


def waiting(client: httpx.Client) -> int:
    line = 'tidemill_pending_requests{kind="push",name="departed"}'
    page = client.get("/metrics").text.splitlines()
    return int(float(next(found for found in page if found.startswith(line)).split()[-1]))


def while_redis_stands_still(
    project: Project, client: httpx.Client, rows: list[dict[str, Any]]
) -> list[httpx.Response]:
    """The answers to requests of one row each, all of which wait before Redis goes on."""
    with ThreadPoolExecutor(len(rows)) as threads:
        with stalled(EmbeddedRedis(project.redis_folder).pid):
            asked = [threads.submit(push, client, row) for row in rows]
            wait_until(lambda: waiting(client) == len(rows))
        return [one.result() for one in asked]


def test_events_from_many_connections_count_once_each(project: Project) -> None:
    rows = [departure(number) for number in range(120)]
    with served(project) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda row: push(client, row).json(), rows + rows))
        page = client.get("/metrics").text
    assert Counter((answer["accepted"], answer["duplicates"]) for answer in answers) == {(1, 0): 120, (0, 1): 120}
    assert 'tidemill_pushed_rows_total{outcome="accepted",source="departed"} 120.0' in page
    inside = [row for row in rows if row["event"] >= (NOW - WINDOW).isoformat()]
    for view, key in (("origins", "origin"), ("carriers", "carrier")):
        names = sorted({row[key] for row in rows})
        found = project.online.read_features(
            [f"{view}:{view}_count", f"{view}:{view}_delay"], [{key: n} for n in names]
        )
        of_each = [[row["delay"] for row in inside if row[key] == name] for name in names]
        assert found.values[f"{view}_count"] == [len(delays) for delays in of_each]
        assert found.values[f"{view}_delay"] == [sum(delays) for delays in of_each]


def test_what_waits_goes_in_one_step_and_each_is_told_of_its_own(project: Project) -> None:
    with served(project) as client:
        assert push(client, departure(0)).json()["accepted"] == 1
        project.online.resp.call("CONFIG", "RESETSTAT")
        answers = while_redis_stands_still(project, client, [departure(number) for number in (1, 2, 3, 4, 0)])
    assert sorted(answer.json()["duplicates"] for answer in answers) == [0, 0, 0, 0, 1]
    stats = project.online.resp.call("INFO", "commandstats").decode()
    [calls] = [line.split("calls=")[1].split(",")[0] for line in stats.splitlines() if "_evalsha:" in line]
    assert int(calls) <= 3  # the first alone, the rest together, and once more without the one that was there before


def test_an_event_that_redis_refuses_fails_its_own_request_alone(project: Project) -> None:
    view = project.catalog.view("origins")
    key = TileLog.of(view).prefix("small") + key_layout(project.catalog, view).encode(["O1"])
    with served(project) as client:
        assert push(client, departure(0)).status_code == 200
        project.online.resp.call("LPUSH", key, "not ours")
        answers = while_redis_stands_still(project, client, [departure(number) for number in (2, 1, 3, 4)])
    assert [answer.status_code for answer in answers] == [200, 409, 200, 200]
    assert "another kind" in answers[1].json()["detail"]
    counts = project.online.read_features(["carriers:carriers_count"], [{"carrier": "C0"}, {"carrier": "C1"}])
    assert counts.values["carriers_count"] == [3, 1]


def test_a_row_that_holds_what_the_openapi_page_asks_for_is_taken(project: Project) -> None:
    """And one that lacks any of it is not: the columns of windows and the event's id are on the page too."""
    with served(project) as client:
        row = client.get("/openapi.json").json()["components"]["schemas"]["DepartedPushRow"]
        whole = {name: value for name, value in departure(1).items() if name in row["properties"]}
        assert set(row["required"]) == set(whole)
        assert row["properties"]["delay"] == {"type": ["number", "boolean", "null"]}
        assert push(client, whole).json() == {"accepted": 1, "duplicates": 0, "rejected": [], "ignored": []}
        for name in row["required"]:
            assert push(client, {key: value for key, value in whole.items() if key != name}).status_code == 422
