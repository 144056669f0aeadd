"""Errors as problem details (RFC 9457): one table from error class to status.

The core raises what went wrong and knows no HTTP; serving adds the few errors that only a server has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tidemill import errors
from tidemill.errors import TidemillError

CONTENT_TYPE = b"application/problem+json"


class MalformedBodyError(errors.InputError):
    """The body of the request is not JSON of the expected kind."""


class RejectedRowsError(errors.InputError):
    """Rows of the request do not fit what was declared. `errors` says where, found and expected, for each."""

    def __init__(self, message: str, *, faults: Sequence[Fault] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.faults = tuple(faults)


class BodyTooLargeError(errors.InputError):
    """The body of the request is larger than this server takes."""


class SlowRequestError(errors.InputError):
    """The request did not arrive in time."""


class UnauthorizedError(TidemillError):
    """The request carries no valid token."""


class OverloadedError(TidemillError):
    """More requests are waiting than this server lets wait."""


class DeadlineError(TidemillError):
    """No answer was ready within the time allowed for a request."""


class NotDeployedError(TidemillError):
    """The model is declared, and no version of it has been promoted yet."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong with a request: where it is, what was found and what was expected."""

    where: str
    found: str
    expected: str


STATUS: dict[type[BaseException], int] = {
    MalformedBodyError: 400,
    UnauthorizedError: 401,
    errors.NotDefinedError: 404,
    SlowRequestError: 408,
    errors.ConflictError: 409,
    BodyTooLargeError: 413,
    errors.InputError: 422,
    OverloadedError: 429,
    errors.ConfigurationError: 500,
    errors.DefinitionError: 500,
    errors.InvariantError: 500,
    errors.NotAppliedError: 503,
    NotDeployedError: 503,
    errors.UnavailableError: 503,
    DeadlineError: 504,
    TidemillError: 500,
}
_RETRY_AFTER = {429: b"1", 503: b"1"}
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An answer that says what went wrong, ready to be sent."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def problem_of(error: BaseException, *, instance: str) -> Problem:
    """The problem document of an error. What is not a TidemillError is a defect: its text stays in the log."""
    status = status_of(error)
    document: dict[str, Any] = {
        "type": f"urn:tidemill:problem:{slug_of(type(error))}",
        "title": _title(error),
        "status": status,
        "detail": error.message if isinstance(error, TidemillError) else "The server failed; its log has the cause.",
        "instance": instance,
    }
    if isinstance(error, TidemillError) and error.hint is not None:
        document["hint"] = error.hint
    if isinstance(error, RejectedRowsError) and error.faults:
        document["errors"] = list(error.faults)
    return problem(status, document)


def problem(status: int, document: dict[str, Any]) -> Problem:
    """Wrap a finished problem document with the headers that go with its status."""
    headers = [(b"content-type", CONTENT_TYPE)]
    if status in _RETRY_AFTER:
        headers.append((b"retry-after", _RETRY_AFTER[status]))
    if status == 401:
        headers += [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="tidemill"')]
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    return Problem(status=status, body=orjson.dumps(document), headers=tuple(headers))


def status_of(error: BaseException) -> int:
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def slug_of(cls: type[BaseException]) -> str:
    """`OnlineStoreUnavailableError` becomes `online-store-unavailable`."""
    return _WORDS.sub("-", cls.__name__.removesuffix("Error")).lower() or "internal"


def _title(error: BaseException) -> str:
    if not isinstance(error, TidemillError):
        return "Internal error"
    first = (type(error).__doc__ or "").strip().splitlines()
    return first[0].rstrip(".") if first else type(error).__name__
