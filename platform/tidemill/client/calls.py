"""What can be asked, as calls: the sync and the async client differ only in how they send them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
import orjson

from tidemill.client.answers import FeatureVectors, ModelInfo, Predictions, PushReceipt
from tidemill.client.failures import PASSING, failure_of, unanswered, unreadable
from tidemill.client.retry import Retry
from tidemill.errors import InputError

Answer = TypeVar("Answer")
Found = httpx.Response | httpx.RequestError
"""What became of one attempt."""

Target = Literal["online", "offline", "both"]
"""Where pushed events go."""

_UNTOUCHED = frozenset({429})


class Frame(Protocol):
    """A frame that gives its rows as mappings, such as Polars'."""

    def to_dicts(self) -> list[dict[str, Any]]: ...


Rows = Iterable[Mapping[str, Any]] | Frame


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Answer]):
    """A request and how to read its answer. `repeatable`: done twice it is as if done once."""

    method: str
    path: str
    body: bytes | None = None
    read: Callable[[Any], Answer]
    repeatable: bool = True

    def pause_before_next(self, found: Found, attempt: int, retry: Retry) -> float | None:
        """Seconds until it should be tried again, or None where what was found is the outcome."""
        if _is_answer(found) or attempt + 1 >= retry.attempts or not self._may_repeat(found):
            return None
        return retry.pause(attempt, found.headers.get("retry-after") if isinstance(found, httpx.Response) else None)

    def outcome(self, found: Found) -> Answer:
        """The answer. Raises RequestRefusedError, ServerFailedError or ServerUnavailableError."""
        asked = f"{self.method} {self.path}"
        if not isinstance(found, httpx.Response):
            raise unanswered(asked, found) from found
        if not _is_answer(found):
            raise failure_of(asked, found)
        try:
            return self.read(orjson.loads(found.content))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise unreadable(asked, found) from error

    def _may_repeat(self, found: Found) -> bool:
        """Whether trying again can help and cannot do the work twice."""
        if isinstance(found, httpx.Response):
            return found.status_code in (PASSING if self.repeatable else _UNTOUCHED)
        return self.repeatable or isinstance(found, httpx.ConnectError | httpx.ConnectTimeout)


def predict_call(model: str, rows: Rows, *, explain: bool, request_id: str | None) -> Call[Predictions]:
    """The name makes it repeatable: however often it is logged, it counts once."""
    body = {"rows": _plain(rows), "explain": explain, "request_id": request_id or uuid4().hex}
    path = f"/v1/models/{quote(model, safe='')}/predict"
    return Call(method="POST", path=path, body=as_json(body), read=Predictions.read)


def features_call(service: str | Sequence[str], rows: Rows, *, event_times: bool) -> Call[FeatureVectors]:
    """Of a service, or of `view:feature` references."""
    body: dict[str, Any] = {"rows": _plain(rows), "event_times": event_times}
    path = "/v1/features"
    if isinstance(service, str):
        path = f"{path}/{quote(service, safe='')}"
    else:
        body["features"] = [*service]
    return Call(method="POST", path=path, body=as_json(body), read=FeatureVectors.read)


def push_call(source: str, rows: Rows, *, to: Target, repeatable: bool) -> Call[PushReceipt]:
    body = as_json({"rows": _plain(rows), "to": to})
    path = f"/v1/push/{quote(source, safe='')}"
    return Call(method="POST", path=path, body=body, read=PushReceipt.read, repeatable=repeatable)


MODELS = Call(method="GET", path="/v1/models", read=ModelInfo.read_all)


def headers(token: str | None) -> dict[str, str]:
    """What every request carries."""
    plain = {"content-type": "application/json"}
    return plain if token is None else plain | {"authorization": f"Bearer {token}"}


def as_json(body: Any) -> bytes:
    """The body of a request. Raises InputError for a value that has no place in JSON."""
    try:
        return orjson.dumps(body, default=_base64, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise InputError(f"The rows cannot be sent as JSON: {error}.", hint="Send plain values.") from None


def address(url: str) -> str:
    """The URL, if it can be one of an API. Raises InputError."""
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no URL of an API.", hint="Write it as http://host:port or https://host.")
    return url


def _is_answer(found: Found) -> bool:
    return isinstance(found, httpx.Response) and found.is_success


def _plain(rows: Rows) -> list[Any]:
    """The rows one by one. Raises InputError for what holds none: a single row, another library's frame."""
    listed: list[Any] = []
    if not isinstance(rows, Iterable) or hasattr(rows, "to_dicts"):  # a frame may be iterable too, by columns
        listed = rows.to_dicts() if hasattr(rows, "to_dicts") else [rows]  # type: ignore[union-attr]
    elif not isinstance(rows, Mapping):
        listed = list(rows)
    if isinstance(rows, Mapping) or not all(isinstance(row, Mapping) for row in listed):
        raise InputError(
            f"The rows are the {type(rows).__name__} {str(rows)[:40]!r}.",
            hint="Give a list of mappings, each from names to values, or a Polars frame.",
        )
    return listed


def _base64(value: Any) -> str:
    """Bytes as the API takes them."""
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} {str(value)[:40]!r}")
