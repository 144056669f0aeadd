"""What a server keeps when the definitions change, and what it gives back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from small_model import promote
from small_project import NOW, DictionaryStore, catalog, open_small, served
from waiting import wait_until

from tidemill.project import Project

ROW = {"origin": "JFK", "route": 1, "distance": 1000.0}


def change(project: Project, client: httpx.Client, number: int) -> None:
    """Put other definitions in force, here and in the server."""
    [service] = catalog().services
    project.catalogs.add(catalog(services=(replace(service, description=f"Change {number}."),)), at=NOW)
    client.serving.refresh()  # type: ignore[attr-defined]


def test_what_reloads_replaced_is_freed_though_it_refers_to_itself(tmp_path: Path) -> None:
    """As the decoders of a read plan do. What start-up built is looked at no more."""
    replaced: list[weakref.ref[DictionaryStore]] = []
    with closing(open_small(tmp_path, request_timeout=0.01)) as project:
        project.catalogs.add(catalog(), at=NOW)
        with served(project) as client:
            for number in range(3):
                change(project, client, number)
                store: Any = project.online
                store.itself = store
                replaced.append(weakref.ref(store))
                del store
            change(project, client, 3)
            wait_until(lambda: gc.collect() >= 0 and not any(store() for store in replaced))
            assert gc.get_freeze_count() > 0


def test_the_requests_that_wait_are_counted_after_a_reload_too(project: Project) -> None:
    async def begun() -> None:
        waiting.append(asyncio.Event())
        await waiting[0].wait()

    waiting: list[asyncio.Event] = []
    with served(project) as client, ThreadPoolExecutor(1) as thread:
        change(project, client, 1)
        project.online.gate = begun
        asked = thread.submit(client.post, "/v1/features/delay_v1", json={"rows": [ROW]})
        wait_until(lambda: waiting)
        found = client.get("/metrics").text
        client.serving._loop.call_soon_threadsafe(waiting[0].set)  # type: ignore[attr-defined]
        assert asked.result().status_code == 200
    assert 'tidemill_pending_requests{kind="features",name="delay_v1"} 1.0' in found


def test_a_model_that_is_declared_no_more_is_not_counted_as_served(project: Project) -> None:
    promote(project, 1)
    with served(project) as client:
        assert 'tidemill_model_version{model="delay"} 1.0' in client.get("/metrics").text
        project.catalogs.add(catalog(models=()), at=NOW)
        client.serving.refresh()  # type: ignore[attr-defined]
        assert "tidemill_model_version{" not in client.get("/metrics").text


def test_what_could_not_be_announced_is_announced_by_the_next_look(project: Project) -> None:
    """Else a server would be ready whose paths are not there."""
    heard: list[int] = []

    def fail_once() -> None:
        heard.append(len(heard))
        if len(heard) == 1:
            raise RuntimeError("not now")

    with served(project) as client:
        client.serving.on_change(fail_once)  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # unless the server's own look was the first to come upon the change
            change(project, client, 1)
        client.serving.refresh()  # type: ignore[attr-defined]
        client.serving.refresh()  # type: ignore[attr-defined]
    assert heard == [0, 1]
