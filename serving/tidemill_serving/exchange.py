"""One HTTP exchange over bare ASGI: the body in, within its limits; bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import orjson

from tidemill.json_depth import DEEPEST, is_too_deep
from tidemill_serving.limits import Limits, Taken
from tidemill_serving.problems import BodyTooLargeError, MalformedBodyError, Problem, SlowRequestError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

WHOLE = "tidemill.whole"
"""In the scope of a request whose body has arrived with its head, as most do: nothing is left to wait for. Its
value sends a whole JSON answer at once, or returns False if it has to be sent as usual."""

_JSON = (b"content-type", b"application/json")
_GZIP = b"\x1f\x8b"
_MOST_DRAINED = 512 * 2**20
_LONGEST_DRAIN = 30.0


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The request's whole body.

    Raises BodyTooLargeError as soon as that is known, OverloadedError where the bodies of all requests together are too
    much, and SlowRequestError where the body does not arrive in time.
    """
    if WHOLE in scope:
        body = (await receive()).get("body", b"")
        if len(body) <= limits.body_bytes:
            return body
        raise _too_large(len(body), limits)
    declared = _declared_length(scope["headers"])
    if declared > limits.body_bytes:
        raise _too_large(declared, limits)
    try:
        with limits.room.taken() as taken:
            async with asyncio.timeout(limits.request_seconds):
                return await _read_parts(receive, limits, taken)
    except TimeoutError:
        raise SlowRequestError(
            f"The body did not arrive within {limits.request_seconds:g} s.", hint="Send it faster, or in smaller parts."
        ) from None


async def _read_parts(receive: Receive, limits: Limits, taken: Taken) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > limits.body_bytes:
            raise _too_large(size, limits)
        taken.add(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_and_drain(message: MutableMapping[str, Any], receive: Receive, send: Send, *, pause: float) -> None:
    """Send the last part of an answer and, before the connection ends with it, throw away what the client still sends.

    An answer that comes before the request is complete would else be lost: a connection that is closed with bytes
    unread is reset, and a client that only sends sees nothing but that. Who pauses for `pause` seconds has seen it.
    """
    await send({**message, "more_body": True})
    loop = asyncio.get_running_loop()
    end = loop.time() + _LONGEST_DRAIN
    try:
        async with asyncio.timeout(pause) as patience:
            async for _part in _rest_of(receive):
                patience.reschedule(min(end, loop.time() + pause))
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


async def _rest_of(receive: Receive) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more and size <= _MOST_DRAINED:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
        size += len(message.get("body", b""))
        yield message.get("body", b"")


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
        if body.startswith(_GZIP):
            what = "compressed, which is not taken"
        raise MalformedBodyError(
            f"The body is {what}.", hint="Send a JSON object; NaN and Infinity are not JSON."
        ) from None
    if not isinstance(found, dict):
        raise MalformedBodyError(f"The body is a JSON {json_kind(found)}; an object was expected.")
    if is_too_deep(body, found):
        raise MalformedBodyError(f"The body is nested deeper than {DEEPEST} levels.", hint="Send rows of plain values.")
    return found


def text_of(request: Mapping[str, Any], name: str) -> str:
    """A text field of a body. Raises MalformedBodyError where it is missing or something else."""
    value = request.get(name)
    if type(value) is not str:
        raise MalformedBodyError(f"`{name}` is missing or no text.")
    return value


def one_of(request: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """A text field of a body that may take some values only, by default the first. Raises MalformedBodyError."""
    value = request.get(name, choices[0])
    if type(value) is not str or value not in choices:
        raise MalformedBodyError(f"`{name}` is {str(value)[:40]!r}; one of {', '.join(choices)} was expected.")
    return value


def json_kind(value: Any) -> str:
    """What JSON calls a value that orjson has read."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object"}.get(type(value), type(value).__name__)


async def send_json(scope: Scope, send: Send, body: bytes) -> None:
    at_once: Callable[[bytes], bool] | None = scope.get(WHOLE)
    if at_once is not None and at_once(body):
        return
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem) -> None:
    headers = [*problem.headers, (b"content-length", b"%d" % len(problem.body))]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body})
