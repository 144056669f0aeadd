"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from tidemill.client.answers import FeatureVectors, ModelInfo, Predictions, PushReceipt
from tidemill.client.calls import (
    MODELS,
    Answer,
    Call,
    Found,
    Rows,
    Target,
    address,
    features_call,
    headers,
    predict_call,
    push_call,
)
from tidemill.client.retry import Retry


class AsyncClient:
    """`Client` for asyncio."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry: Retry | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=address(url), timeout=timeout, headers=headers(token))
        self._retry = retry or Retry()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def predict(
        self, model: str, rows: Rows, *, explain: bool = False, request_id: str | None = None
    ) -> Predictions:
        """See `Client.predict`."""
        return await self._send(predict_call(model, rows, explain=explain, request_id=request_id))

    async def features(self, service: str | Sequence[str], rows: Rows, *, event_times: bool = False) -> FeatureVectors:
        """See `Client.features`."""
        return await self._send(features_call(service, rows, event_times=event_times))

    async def push(self, source: str, rows: Rows, *, to: Target = "online", repeatable: bool = False) -> PushReceipt:
        """See `Client.push`."""
        return await self._send(push_call(source, rows, to=to, repeatable=repeatable))

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return await self._send(MODELS)

    async def ready(self) -> bool:
        """See `Client.ready`."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.RequestError:
            return False

    async def _send(self, call: Call[Answer]) -> Answer:
        attempt, found = 0, await self._try(call)
        while (pause := call.pause_before_next(found, attempt, self._retry)) is not None:
            await asyncio.sleep(pause)
            attempt, found = attempt + 1, await self._try(call)
        return call.outcome(found)

    async def _try(self, call: Call[Any]) -> Found:
        try:
            return await self._http.request(call.method, call.path, content=call.body)
        except httpx.RequestError as error:
            return error
