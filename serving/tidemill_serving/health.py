"""Is the process alive, is it ready, and what does it count: /healthz, /readyz, /metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from tidemill.errors import TidemillError
from tidemill_serving.metrics import CONTENT_TYPE
from tidemill_serving.state import ServingState


def health_router(state: ServingState) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="Whether requests can be answered, part by part")
    async def readyz(response: Response) -> dict[str, Any]:
        parts = await check_parts(state)
        ready = all(part["ok"] for part in parts.values())
        response.status_code = 200 if ready else 503
        return {"status": "ready" if ready else "not ready", "parts": parts}

    @router.get("/health", include_in_schema=False)
    async def feast_health(response: Response) -> None:
        response.status_code = 200 if state.ready else 503

    @router.get("/metrics", summary="Counts and times for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(state.metrics.page(), media_type=CONTENT_TYPE)

    return router


async def check_parts(state: ServingState) -> dict[str, dict[str, Any]]:
    """Each part a request needs, whether it is well, and if not why."""
    parts = {
        "catalog": _part(state.trouble, version=state.snapshot.version if state.trouble is None else None),
        "online_store": _part(await _ping(state)),
    }
    if (waiting := state.project.predictions.waiting_seconds) > state.limits.request_seconds:
        parts["prediction_log"] = _part(f"Its disk has not taken a write for {waiting:.0f} s.")
    if state.draining:
        parts["server"] = _part("It is shutting down.")
    for name, served in state.shelf.served.items():
        parts[f"model:{name}"] = _part(None, version=served.version, newer_failed=state.shelf.failures.get(name))
    for name, failure in state.shelf.failures.items():
        parts.setdefault(f"model:{name}", _part(failure))
    return parts


async def _ping(state: ServingState) -> str | None:
    if state.trouble is not None:
        return "Not looked for before there is a catalog."
    try:
        await asyncio.wait_for(asyncio.to_thread(state.snapshot.online.ping), state.limits.request_seconds)
    except TidemillError as error:
        return str(error)
    except TimeoutError:
        return f"It did not answer within {state.limits.request_seconds:g} s."
    return None


def _part(trouble: str | None, **details: Any) -> dict[str, Any]:
    return {"ok": trouble is None, "trouble": trouble} | {key: value for key, value in details.items() if value}
