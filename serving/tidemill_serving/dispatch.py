"""The front door: every request passes here first.

Checks the token, answers the hot paths over bare ASGI (an exact path is one dictionary look-up), hands everything
else to FastAPI, turns every error into a problem document, and counts and times what was answered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter
from typing import Any

from tidemill.errors import TidemillError
from tidemill_serving.auth import Tokens
from tidemill_serving.exchange import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    read_body,
    send_and_drain,
    send_json,
    send_problem,
)
from tidemill_serving.features import FeatureEndpoint
from tidemill_serving.predict import PredictEndpoint
from tidemill_serving.problems import problem_of, status_of
from tidemill_serving.push import PushEndpoint
from tidemill_serving.refusal_log import RefusalLog
from tidemill_serving.state import ServingState

_log = logging.getLogger("tidemill.serving")

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = Callable[[bytes], Awaitable[bytes]]


class HotRoutes:
    """The paths that are answered without a router: one for each model, service and stream in force.

    `rebuild` runs in the background thread after a change; the table is replaced in one assignment and endpoints that
    stay are kept, with whoever waits in them.
    """

    def __init__(self, state: ServingState) -> None:
        self._state = state
        self._models: dict[str, PredictEndpoint] = {}
        self._services: dict[str, FeatureEndpoint] = {}
        self._streams: dict[str, PushEndpoint] = {}
        self.table: Mapping[str, tuple[str, Answer]] = {}
        state.on_change(self.rebuild)

    def rebuild(self) -> None:
        catalog = self._state.snapshot.catalog
        table: dict[str, tuple[str, Answer]] = {}
        for model in catalog.models:
            if model.name not in self._models:
                self._models[model.name] = PredictEndpoint(self._state, model.name)
            table[f"/v1/models/{model.name}/predict"] = ("/v1/models/{model}/predict", self._models[model.name].answer)
        for service in catalog.services:
            if service.name not in self._services:
                self._services[service.name] = FeatureEndpoint(self._state, service.name)
            table[f"/v1/features/{service.name}"] = ("/v1/features/{service}", self._services[service.name].answer)
        for stream in catalog.streams:
            if stream.name not in self._streams:
                self._streams[stream.name] = PushEndpoint(self._state, stream.name)
            table[f"/v1/push/{stream.name}"] = ("/v1/push/{source}", self._streams[stream.name].answer)
        self.table = table


class FrontDoor:
    """An ASGI application around the whole of another."""

    def __init__(self, app: Application, *, state: ServingState, hot: HotRoutes) -> None:
        self._app, self._state, self._hot = app, state, hot
        self._tokens = Tokens.of(state.project.settings)
        self._refusals = RefusalLog(_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._serve(scope, receive, send)
        elif kind == "websocket":
            await self._connect(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        path = scope["path"]
        hot = self._hot.table.get(path) if scope["method"] == "POST" else None
        try:
            self._tokens.check(path, scope["headers"])
            if hot is None:
                await self._serve_cold(scope, receive, send, started)
                return
            route, answer = hot
            body = await answer(await read_body(scope, receive, self._state.limits))
            self._state.metrics.answered(route, 200, perf_counter() - started)
            await send_json(scope, send, body)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a problem document
            route = _route_of(scope) if hot is None else hot[0]
            self._note(error, route, path, started)
            await send_problem(self._patient(receive, send), problem_of(error, instance=path))

    async def _serve_cold(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        status, patient = 0, self._patient(receive, send)

        async def note_status(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                # Before the last byte leaves: who has the answer can ask for the metrics at once.
                self._state.metrics.answered(_route_of(scope), status, perf_counter() - started)
            await patient(message)

        try:
            await self._app(scope, receive, note_status)
        except Exception as error:
            if status == 0:
                raise
            _log.error("Answering %s failed.", scope["path"], exc_info=error)  # it has been answered already

    def _patient(self, receive: Receive, send: Send) -> Send:
        """`send`, but whoever is told that a body is too large gets the chance to see it."""
        too_large = False

        async def patient(message: MutableMapping[str, Any]) -> None:
            nonlocal too_large
            if message["type"] == "http.response.start":
                too_large = message["status"] == 413
            elif too_large and not message.get("more_body", False):
                await send_and_drain(message, receive, send, pause=self._state.limits.request_seconds)
                return
            await send(message)

        return patient

    def _note(self, error: Exception, route: str, path: str, started: float) -> None:
        """Count the refusal, and log it where it is ours, unless it is one of many."""
        status = status_of(error)
        if not isinstance(error, TidemillError):
            _log.error("Answering %s failed.", path, exc_info=error)
        elif status >= 500:
            self._refusals.note(path, error, at=perf_counter())
        self._state.metrics.answered(route, status, perf_counter() - started)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._tokens.check(scope["path"], scope["headers"])
        except TidemillError:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)


def _route_of(scope: Scope) -> str:
    """The route's template, so that a metric has as many series as there are routes and not as there are paths."""
    return getattr(scope.get("route"), "path", "other")
