"""The client that waits."""

from __future__ import annotations

import time
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


class Client:
    """Asks a Tidemill API and waits for the answer. Thread-safe; keeps connections open; use as a context manager.

    Args:
        url: where the API is.
        token: the bearer token, if the API asks for one.
        timeout: seconds to wait for an answer, each time it is asked.
        retry: how often and how patiently to ask again.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry: Retry | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=address(url), timeout=timeout, headers=headers(token))
        self._retry = retry or Retry()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(self, model: str, rows: Rows, *, explain: bool = False, request_id: str | None = None) -> Predictions:
        """Predict for each row: its join keys, request fields and, if you like, the column that names it.

        With `explain` the answer holds the features each prediction was made from. `request_id` (letters, digits, `-`,
        `_`, `.`; at most 64; default a random one) names the request: however often it had to be sent, its predictions
        have the same names and count once in the log.
        """
        return self._send(predict_call(model, rows, explain=explain, request_id=request_id))

    def features(self, service: str | Sequence[str], rows: Rows, *, event_times: bool = False) -> FeatureVectors:
        """The features of a service, or of a list of `view:feature` references, for each row."""
        return self._send(features_call(service, rows, event_times=event_times))

    def push(self, source: str, rows: Rows, *, to: Target = "online", repeatable: bool = False) -> PushReceipt:
        """Push events; `to` is `online`, `offline` or `both`.

        Say `repeatable=True` where the views name an event id: then a push whose answer got lost is sent again, and
        counts once.
        """
        return self._send(push_call(source, rows, to=to, repeatable=repeatable))

    def models(self) -> list[ModelInfo]:
        """The models of the project and the version of each that is served."""
        return self._send(MODELS)

    def ready(self) -> bool:
        """Whether the API can answer requests now. Asks once."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.RequestError:
            return False

    def _send(self, call: Call[Answer]) -> Answer:
        attempt, found = 0, self._try(call)
        while (pause := call.pause_before_next(found, attempt, self._retry)) is not None:
            time.sleep(pause)
            attempt, found = attempt + 1, self._try(call)
        return call.outcome(found)

    def _try(self, call: Call[Any]) -> Found:
        try:
            return self._http.request(call.method, call.path, content=call.body)
        except httpx.RequestError as error:
            return error
