"""The Python client of the HTTP API: `Client` waits, `AsyncClient` awaits.

    with Client("http://127.0.0.1:8000") as tide:
        answer = tide.predict("arrival_delay", [{"origin": "JFK", "carrier": "B6"}])
        answer[0].prediction

What failed for a passing reason (no connection, 429, 502, 503, 504) and may be done twice is tried again after a pause
that doubles and is drawn at random, so that many clients do not come back at once. A prediction that is asked for again
keeps its name, so that the log counts it once.
"""

from __future__ import annotations

import asyncio
import random
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
import orjson

from tidemill.errors import InputError, TidemillError, UnavailableError

__all__ = [
    "AsyncClient",
    "Client",
    "FeatureVectors",
    "ModelInfo",
    "Prediction",
    "Predictions",
    "PushReceipt",
    "RequestRefusedError",
    "Retry",
    "ServerFailedError",
    "ServerUnavailableError",
]

Answer = TypeVar("Answer")
Rows = Any
"""A sequence of mappings, or a frame that has `to_dicts` (Polars)."""

_PASSING = frozenset({429, 502, 503, 504})
_UNTOUCHED = frozenset({429})


class RequestRefusedError(InputError):
    """The server will not answer this request; asking again changes nothing. See `status` and `problem`."""

    def __init__(self, message: str, *, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(message, hint=problem.get("hint"))
        self.status, self.problem = status, problem


class ServerFailedError(TidemillError):
    """The server failed on this request; its log has the cause."""

    def __init__(self, message: str, *, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(message, hint=problem.get("hint"))
        self.status, self.problem = status, problem


class ServerUnavailableError(UnavailableError):
    """The server could not be reached or could not answer, however often it was asked."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and how patiently a request is tried again.

    The pause before attempt n is drawn from [0, min(longest, first * 2**n)) seconds, and is at least what the server
    asked for with Retry-After.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 5.0
    draw: Callable[[], float] = field(default=random.random, repr=False)

    def pause(self, attempt: int, retry_after: str | None) -> float:
        asked = float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
        return min(self.longest, max(asked, self.draw() * min(self.longest, self.first * 2**attempt)))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One row's answer. `features` is filled in when it was asked for with `explain`."""

    id: str | None
    prediction_id: str
    prediction: float
    statuses: Mapping[str, str]
    stale: tuple[str, ...] = ()
    features: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Predictions(Sequence[Prediction]):
    """The answers in the order of the rows, all from one version of the model and at one instant (UTC)."""

    model: str
    version: int
    at: datetime
    rows: tuple[Prediction, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)


@dataclass(frozen=True, kw_only=True)
class FeatureVectors:
    """Features by name, each a list in the order of the rows; statuses alike. `at` is the instant of the read (UTC)."""

    service: str | None
    catalog_version: int
    at: datetime
    features: Mapping[str, list[Any]]
    statuses: Mapping[str, list[str]]
    stale: Mapping[str, list[bool]]
    event_times: Mapping[str, list[str | None]] | None = None

    def row(self, index: int) -> dict[str, Any]:
        """One row's features."""
        return {name: column[index] for name, column in self.features.items()}


@dataclass(frozen=True, kw_only=True)
class PushReceipt:
    """What became of pushed rows. `rejected` names rows by their position, with the reason."""

    accepted: int
    duplicates: int
    rejected: tuple[Mapping[str, Any], ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model as it is served; `version` is None before the first promotion."""

    name: str
    service: str
    version: int | None
    description: str
    row: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class _Call(Generic[Answer]):
    """A request and how to read its answer. `repeatable`: done twice it is as if done once."""

    method: str
    path: str
    body: bytes | None
    read: Callable[[Any], Answer]
    repeatable: bool = True

    def outcome(self, response: httpx.Response) -> Answer:
        """The answer. Raises RequestRefusedError, ServerFailedError or ServerUnavailableError."""
        if response.status_code < 400:
            return self.read(orjson.loads(response.content))
        problem = _problem(response)
        text = f"{self.method} {self.path} was answered {response.status_code}: {problem.get('detail', response.text)}"
        if response.status_code in _PASSING:
            raise ServerUnavailableError(text, hint=problem.get("hint"))
        kind = RequestRefusedError if response.status_code < 500 else ServerFailedError
        raise kind(text, status=response.status_code, problem=problem)

    def may_repeat(self, failure: httpx.Response | httpx.TransportError) -> bool:
        """Whether trying again can help and cannot do the work twice."""
        if isinstance(failure, httpx.Response):
            return failure.status_code in (_PASSING if self.repeatable else _UNTOUCHED)
        return self.repeatable or isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout)


class _Calls:
    """What can be asked, as calls: the sync and the async client differ only in how they send them."""

    @staticmethod
    def predict(model: str, rows: Rows, *, explain: bool, request_id: str | None) -> _Call[Predictions]:
        body = {"rows": _plain_rows(rows), "explain": explain, "request_id": request_id or uuid4().hex}
        return _Call(
            method="POST", path=f"/v1/models/{quote(model, safe='')}/predict", body=_json(body), read=_predictions
        )

    @staticmethod
    def features(service: str | Sequence[str], rows: Rows, *, event_times: bool) -> _Call[FeatureVectors]:
        body: dict[str, Any] = {"rows": _plain_rows(rows), "event_times": event_times}
        if isinstance(service, str):
            return _Call(method="POST", path=f"/v1/features/{quote(service, safe='')}", body=_json(body), read=_vectors)
        return _Call(method="POST", path="/v1/features", body=_json(body | {"features": [*service]}), read=_vectors)

    @staticmethod
    def push(source: str, rows: Rows, *, to: str, repeatable: bool) -> _Call[PushReceipt]:
        body = {"rows": _plain_rows(rows), "to": to}
        return _Call(
            method="POST",
            path=f"/v1/push/{quote(source, safe='')}",
            body=_json(body),
            read=_receipt,
            repeatable=repeatable,
        )

    @staticmethod
    def models() -> _Call[list[ModelInfo]]:
        return _Call(method="GET", path="/v1/models", body=None, read=_models)


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
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=_headers(token))
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
        return self._send(_Calls.predict(model, rows, explain=explain, request_id=request_id))

    def features(self, service: str | Sequence[str], rows: Rows, *, event_times: bool = False) -> FeatureVectors:
        """The features of a service, or of a list of `view:feature` references, for each row."""
        return self._send(_Calls.features(service, rows, event_times=event_times))

    def push(self, source: str, rows: Rows, *, to: str = "online", repeatable: bool = False) -> PushReceipt:
        """Push events; `to` is `online`, `offline` or `both`.

        Say `repeatable=True` where the views name an event id: then a push whose answer got lost is sent again, and
        counts once.
        """
        return self._send(_Calls.push(source, rows, to=to, repeatable=repeatable))

    def models(self) -> list[ModelInfo]:
        """The models of the project and the version of each that is served."""
        return self._send(_Calls.models())

    def ready(self) -> bool:
        """Whether the API can answer requests now. Asks once."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _send(self, call: _Call[Answer]) -> Answer:
        for attempt in range(self._retry.attempts):
            found = self._try(call)
            if _is_last(found, call, attempt, self._retry):
                return _settle(call, found)
            time.sleep(self._retry.pause(attempt, _retry_after(found)))
        raise AssertionError("A retry policy allows at least one attempt.")

    def _try(self, call: _Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            return self._http.request(call.method, call.path, content=call.body)
        except httpx.TransportError as error:
            return error


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
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, headers=_headers(token))
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
        return await self._send(_Calls.predict(model, rows, explain=explain, request_id=request_id))

    async def features(self, service: str | Sequence[str], rows: Rows, *, event_times: bool = False) -> FeatureVectors:
        """See `Client.features`."""
        return await self._send(_Calls.features(service, rows, event_times=event_times))

    async def push(self, source: str, rows: Rows, *, to: str = "online", repeatable: bool = False) -> PushReceipt:
        """See `Client.push`."""
        return await self._send(_Calls.push(source, rows, to=to, repeatable=repeatable))

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return await self._send(_Calls.models())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def _send(self, call: _Call[Answer]) -> Answer:
        for attempt in range(self._retry.attempts):
            found = await self._try(call)
            if _is_last(found, call, attempt, self._retry):
                return _settle(call, found)
            await asyncio.sleep(self._retry.pause(attempt, _retry_after(found)))
        raise AssertionError("A retry policy allows at least one attempt.")

    async def _try(self, call: _Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            return await self._http.request(call.method, call.path, content=call.body)
        except httpx.TransportError as error:
            return error


def _is_last(found: httpx.Response | httpx.TransportError, call: _Call[Any], attempt: int, retry: Retry) -> bool:
    """Whether this is the outcome: an answer, or a failure that is not tried again."""
    answered = isinstance(found, httpx.Response) and found.status_code < 400
    return answered or attempt + 1 >= retry.attempts or not call.may_repeat(found)


def _settle(call: _Call[Answer], found: httpx.Response | httpx.TransportError) -> Answer:
    if isinstance(found, httpx.Response):
        return call.outcome(found)
    raise ServerUnavailableError(
        f"{call.method} {call.path} got no answer: {type(found).__name__}: {found}.",
        hint="Is the API running? `tidemill up` starts it.",
    ) from found


def _retry_after(found: httpx.Response | httpx.TransportError) -> str | None:
    return found.headers.get("retry-after") if isinstance(found, httpx.Response) else None


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _headers(token: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    return headers if token is None else headers | {"authorization": f"Bearer {token}"}


def _plain_rows(rows: Rows) -> list[Any]:
    return rows.to_dicts() if hasattr(rows, "to_dicts") else list(rows)


def _json(body: Any) -> bytes:
    """Raises InputError for a value that has no place in JSON."""
    try:
        return orjson.dumps(body, default=_base64, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise InputError(f"The rows cannot be sent as JSON: {error}.", hint="Send plain values.") from None


def _base64(value: Any) -> str:
    """Bytes as the API takes them."""
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} {str(value)[:40]!r}")


def _predictions(plain: Any) -> Predictions:
    return Predictions(
        model=plain["model"],
        version=plain["version"],
        at=datetime.fromisoformat(plain["at"]),
        rows=tuple(
            Prediction(
                id=row["id"],
                prediction_id=row["prediction_id"],
                prediction=row["prediction"],
                statuses=row["statuses"],
                stale=tuple(row["stale"]),
                features=row.get("features"),
            )
            for row in plain["predictions"]
        ),
    )


def _vectors(plain: Any) -> FeatureVectors:
    return FeatureVectors(**(plain | {"at": datetime.fromisoformat(plain["at"])}))


def _receipt(plain: Any) -> PushReceipt:
    return PushReceipt(
        accepted=plain["accepted"],
        duplicates=plain["duplicates"],
        rejected=tuple(plain["rejected"]),
        ignored=tuple(plain["ignored"]),
    )


def _models(plain: Any) -> list[ModelInfo]:
    return [
        ModelInfo(
            name=model["name"],
            service=model["service"],
            version=model["version"],
            description=model["description"],
            row=tuple(model["row"]),
        )
        for model in plain["models"]
    ]
