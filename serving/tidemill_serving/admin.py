"""What there is and what is served, and control under /v1/admin."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from tidemill.definitions.catalog import Model
from tidemill_serving.rows import RowSchema
from tidemill_serving.state import ServingState
from tidemill_serving.vectors import service_types


def catalog_router(state: ServingState) -> APIRouter:
    """What can be asked for, for people and for clients."""
    router = APIRouter(tags=["catalog"])

    @router.get("/v1/models", summary="The models and the version of each that is served")
    async def models() -> dict[str, Any]:
        return {"models": [_model(state, model) for model in state.snapshot.catalog.models]}

    @router.get("/v1/models/{model}", summary="One model: what it reads and how good it was")
    async def model(model: str) -> dict[str, Any]:
        declared = state.snapshot.catalog.model(model)
        return _model(state, declared) | _evaluation(state, model)

    @router.get("/v1/features", summary="The feature services: what a row holds and what comes back")
    async def services() -> dict[str, Any]:
        snapshot = state.snapshot
        return {
            "services": [
                {
                    "name": service.name,
                    "description": service.description,
                    "row": _row(snapshot.schemas[service.name]),
                    "features": {
                        name: dtype.name for name, dtype in service_types(snapshot.catalog, service.name).items()
                    },
                }
                for service in snapshot.catalog.services
            ]
        }

    return router


def admin_router(state: ServingState) -> APIRouter:
    """Control. Guarded by `admin_token` where one is set."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"])

    @router.get("/status", summary="What this process serves")
    async def status() -> dict[str, Any]:
        snapshot = state.snapshot
        return {
            "project": state.project.name,
            "now": state.project.clock.now(),
            "catalog": {"version": snapshot.version, "digest": snapshot.digest},
            "models": [_model(state, model) for model in snapshot.catalog.models],
            "limits": {
                "body_bytes": state.limits.body_bytes,
                "rows": state.limits.rows,
                "pending": state.limits.pending,
                "request_seconds": state.limits.request_seconds,
            },
        }

    @router.post("/refresh", summary="Look for a new catalog and new models now")
    async def refresh() -> dict[str, Any]:
        await asyncio.to_thread(state.refresh)
        return await status()

    @router.post("/materialize", summary="Bring the online store up to now")
    async def materialize() -> dict[str, Any]:
        reports = await asyncio.to_thread(state.project.materialize)
        return {"runs": reports}

    return router


def _model(state: ServingState, model: Model) -> dict[str, Any]:
    served = state.shelf.served.get(model.name)
    return {
        "name": model.name,
        "description": model.description,
        "service": model.service,
        "version": None if served is None else served.version,
        "promoted_at": None if served is None else served.deployment.changed_at,
        "trouble": state.shelf.failures.get(model.name),
        "row": _row(state.snapshot.model_schemas[model.name]),
    }


def _evaluation(state: ServingState, model: str) -> dict[str, Any]:
    served = state.shelf.served.get(model)
    if served is None:
        return {}
    manifest = served.artifact.manifest
    return {
        "metrics": dict(manifest.metrics),
        "trained_at": manifest.trained_at,
        "trained_on": {"service": manifest.service, "catalog_digest": manifest.catalog_digest},
        "features": list(manifest.feature_names),
        "digest": served.deployment.digest,
    }


def _row(schema: RowSchema) -> list[dict[str, Any]]:
    row = [
        {"name": item.name, "type": item.dtype.name, "role": "join key" if item.is_key else "request field"}
        for item in schema.fields
    ]
    return row if schema.id_column is None else [*row, {"name": schema.id_column, "type": "STRING", "role": "id"}]
