"""The application: `create_app(project)` is the composition root of a serving process."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tidemill.errors import NotDefinedError, TidemillError
from tidemill.project import Project
from tidemill_serving.admin import admin_router, catalog_router
from tidemill_serving.api_page import PATH, add_api_page
from tidemill_serving.dispatch import FrontDoor, HotRoutes
from tidemill_serving.exchange import ClientGoneError, Receive, Scope, Send, read_body
from tidemill_serving.feast_compat import feast_router
from tidemill_serving.features import answer_references
from tidemill_serving.health import health_router
from tidemill_serving.openapi import describe
from tidemill_serving.problems import Problem, problem, problem_of
from tidemill_serving.push import answer_push
from tidemill_serving.state import ServingState

_CLIENT_GONE = 499  # as nginx counts it
_FEW_OBJECTS = 50_000


class TidemillApi(FastAPI):
    """A FastAPI application behind a front door that answers the hot paths before FastAPI sees them."""

    def stand_behind(self, state: ServingState, hot: HotRoutes) -> None:
        self._front_door = FrontDoor(super().__call__, state=state, hot=hot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        await self._front_door(scope, receive, send)


def create_app(project: Project, *, dashboard: bool = False) -> FastAPI:
    """An ASGI application that serves the project. It opens nothing before it is started.

    Args:
        project: an open project; it stays the caller's to close.
        dashboard: also serve the dashboard below `/dashboard`, which takes longer to start.
    """
    state = ServingState(project)
    app = TidemillApi(
        title=f"Tidemill: {project.name}",
        description="Feature vectors and predictions. Errors are problem details (RFC 9457).",
        lifespan=_lifespan,
        docs_url=None,  # `add_api_page` has one that needs nothing from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.serving = state
    hot = HotRoutes(state)
    for router in (_work_router(state, hot), catalog_router(state), feast_router(state), admin_router(state)):
        app.include_router(router)
    app.include_router(health_router(state))
    add_api_page(app, home="/dashboard/" if dashboard else PATH)
    _speak_problem_details(app)
    describe(app, state)
    app.stand_behind(state, hot)
    if dashboard:
        from tidemill_serving.dashboard import mount_dashboard

        mount_dashboard(app, project)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Answer at once; be ready when the catalog and the models are loaded, which the background thread does."""
    state: ServingState = app.state.serving
    state.on_change(_freeze_libraries)
    state.start()
    try:
        yield
    finally:
        await state.stop()
        gc.unfreeze()  # a process that goes on without us gets its memory back


def _freeze_libraries() -> None:
    """What start-up built stays for good: the collector need not look at it again, which halves the slowest answers.

    A catalog or a model is replaced one day, and what refers to itself is freed only if it is not frozen. A few
    thousand objects are looked at in a millisecond, so they are left as they are. Where more has come (a library that
    the first model needs), all is looked at once, for as long as that takes, and frozen anew.
    """
    gc.collect()
    if len(gc.get_objects(generation=2)) <= _FEW_OBJECTS:
        return
    if gc.get_freeze_count() > 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


def _work_router(state: ServingState, hot: HotRoutes) -> APIRouter:
    """Paths that FrontDoor answers itself when they are in force, and here only when the name is not (yet) known."""
    router = APIRouter(include_in_schema=False)

    @router.post("/v1/models/{model}/predict")
    async def predict(model: str, request: Request) -> Response:
        state.snapshot.catalog.model(model)
        return await _retry_hot(state, hot, request)

    @router.post("/v1/features/{service}")
    async def features(service: str, request: Request) -> Response:
        state.snapshot.catalog.service(service)
        return await _retry_hot(state, hot, request)

    @router.post("/v1/features")
    async def references(request: Request) -> Response:
        return json_response(await answer_references(state, await body_of(state, request)))

    @router.post("/v1/push/{source}")
    async def push(source: str, request: Request) -> Response:
        return json_response(await answer_push(state, source, await body_of(state, request)))

    return router


async def _retry_hot(state: ServingState, hot: HotRoutes, request: Request) -> Response:
    """The name came into force between the front door and here."""
    entry = hot.table.get(request.url.path)
    if entry is None:
        raise NotDefinedError("path", request.url.path, hot.table)
    return json_response(await entry[1](await body_of(state, request)))


async def body_of(state: ServingState, request: Request) -> bytes:
    return await read_body(request.scope, request.receive, state.limits)


def json_response(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _speak_problem_details(app: FastAPI) -> None:
    """FastAPI's own errors (no such path, wrong method) look like ours."""

    @app.exception_handler(TidemillError)
    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> Response:
        return _response(problem_of(error, instance=request.url.path))

    @app.exception_handler(ClientGoneError)
    async def gone(_request: Request, _error: ClientGoneError) -> Response:
        return Response(status_code=_CLIENT_GONE)  # for the metrics; nobody reads it

    @app.exception_handler(HTTPException)
    async def theirs(request: Request, error: HTTPException) -> Response:
        response = _response(_plain_problem(request, error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        described = app.openapi()["paths"].get(request.url.path)
        if error.status_code == 405 and described is not None:  # a path may have a route for each method
            response.headers["allow"] = ", ".join(sorted(map(str.upper, described)))
        return response

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return _response(_plain_problem(request, 422, wrong))


def _plain_problem(request: Request, status: int, detail: str) -> Problem:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": detail,
        "status": status,
        "detail": f"{request.method} {request.url.path}: {detail}",
        "instance": request.url.path,
    }
    return problem(status, document)


def _response(found: Problem) -> Response:
    headers = {name.decode(): value.decode() for name, value in found.headers}
    return Response(found.body, status_code=found.status, headers=headers)
