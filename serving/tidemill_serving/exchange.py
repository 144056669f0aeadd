"""One HTTP exchange over bare ASGI: the body in, within its limits; bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import orjson

from tidemill_serving.limits import Limits
from tidemill_serving.problems import BodyTooLargeError, MalformedBodyError, Problem, SlowRequestError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_MOST_DRAINED = 512 * 2**20


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The request's whole body.

    Raises BodyTooLargeError, having read and thrown away what the client still sent so that it gets to see the answer,
    and SlowRequestError where the body does not arrive in time.
    """
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request" and len(body) <= limits.body_bytes:
        return body
    try:
        async with asyncio.timeout(limits.request_seconds):
            return await _read_rest(scope, receive, limits, message)
    except TimeoutError:
        if _declared_length(scope["headers"]) > limits.body_bytes:
            raise _too_large(_declared_length(scope["headers"]), limits) from None
        raise SlowRequestError(
            f"The body did not arrive within {limits.request_seconds:g} s.", hint="Send it faster, or in smaller parts."
        ) from None


async def _read_rest(scope: Scope, receive: Receive, limits: Limits, message: MutableMapping[str, Any]) -> bytes:
    declared = _declared_length(scope["headers"])
    if declared > _MOST_DRAINED:
        raise _too_large(declared, limits)
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        size += len(message.get("body", b""))
        if size <= limits.body_bytes:
            parts.append(message.get("body", b""))
        else:
            parts.clear()
        if not message.get("more_body", False) or size > _MOST_DRAINED:
            break
        message = await receive()
    if max(size, declared) > limits.body_bytes:
        raise _too_large(max(size, declared), limits)
    return b"".join(parts)


def _too_large(size: int, limits: Limits) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The body has {size:,} bytes or more; at most {limits.body_bytes:,} are taken.",
        hint="Ask for fewer rows in one request, or raise `max_body_bytes`.",
    )


def _declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises MalformedBodyError saying where it stops being one."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        what = "empty" if not body.strip() else f"not valid JSON: {error}"
        raise MalformedBodyError(
            f"The body is {what}.", hint="Send a JSON object; NaN and Infinity are not JSON."
        ) from None
    if not isinstance(found, dict):
        raise MalformedBodyError(f"The body is a JSON {json_kind(found)}; an object was expected.")
    return found


def json_kind(value: Any) -> str:
    """What JSON calls a value that orjson has read."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object"}.get(type(value), type(value).__name__)


async def send_json(send: Send, body: bytes) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem) -> None:
    headers = [*problem.headers, (b"content-length", b"%d" % len(problem.body))]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body})
