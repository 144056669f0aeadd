"""Reads that share nothing with others, by references or as Feast asks, have the limits that all requests have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_project import NOW, catalog, open_small, served
from waiting import PATIENCE, wait_until

REFERENCES = ("/v1/features", {"features": ["weather:temp"], "rows": [{"origin": "JFK", "route": 1}] * 2})
FEAST = ("/get-online-features", {"features": ["weather:temp"], "entities": {"origin": ["JFK"] * 2, "route": [1] * 2}})
WAITING = {"kind": "read", "name": "references"}


@contextmanager
def held_up(folder: Path, **settings: Any) -> Iterator[tuple[httpx.Client, Callable[[], None]]]:
    """A server whose store answers nothing until it is let go, or the block ends."""
    with closing(open_small(folder, **settings)) as project:
        project.catalogs.add(catalog(), at=NOW)
        gate = asyncio.Event()
        with served(project) as client:
            project.online.gate = gate.wait
            loop = client.serving._loop  # type: ignore[attr-defined]
            try:
                yield client, lambda: loop.call_soon_threadsafe(gate.set)
            finally:
                loop.call_soon_threadsafe(gate.set)


def reads_waiting(client: httpx.Client) -> Any:
    return client.serving.metrics.registry.get_sample_value("tidemill_pending_requests", WAITING)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("path", "body"), [REFERENCES, FEAST])
def test_a_read_that_takes_too_long_is_given_up(tmp_path: Path, path: str, body: Any) -> None:
    with held_up(tmp_path, request_timeout=0.05) as (client, _), ThreadPoolExecutor(1) as thread:
        asked = thread.submit(client.post, path, json=body)
        assert asked.result(PATIENCE).status_code == 504


@pytest.mark.parametrize(("path", "body"), [REFERENCES, FEAST])
@pytest.mark.parametrize("limit", [{"max_pending": 3}, {"max_rows": 2, "max_pending": 1_000}])
def test_more_reads_than_there_is_room_for_are_turned_away(
    tmp_path: Path, path: str, body: Any, limit: dict[str, int]
) -> None:
    """So many requests, or so many rows: sixteen times what one request may have."""
    room = 3 if limit["max_pending"] == 3 else 16
    with (
        held_up(tmp_path, request_timeout=PATIENCE, **limit) as (client, let_go),
        ThreadPoolExecutor(room) as threads,
    ):
        asked = [threads.submit(client.post, path, json=body) for _ in range(room)]
        wait_until(lambda: reads_waiting(client) == room)
        refused = client.post(path, json=body)
        let_go()
        assert [one.result().status_code for one in asked] == [200] * room
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
