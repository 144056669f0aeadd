"""What a request can end in other than an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from tidemill.errors import InputError, TidemillError, UnavailableError

PASSING = frozenset({429, 502, 503, 504})
"""Statuses of a server, or of what stands before it, that may answer in a moment."""


class RequestRefusedError(InputError):
    """The server will not answer this request; asking again changes nothing. See `status` and `problem`."""

    def __init__(self, message: str, *, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(message, hint=problem.get("hint"))
        self.status, self.problem = status, problem


class ServerFailedError(TidemillError):
    """The server failed on this request; its log has the cause."""

    def __init__(self, message: str, *, status: int, problem: Mapping[str, Any], hint: str | None = None) -> None:
        super().__init__(message, hint=hint or problem.get("hint"))
        self.status, self.problem = status, problem


class ServerUnavailableError(UnavailableError):
    """The server could not be reached or could not answer, however often it was asked."""


def failure_of(asked: str, response: httpx.Response) -> TidemillError:
    """The error that a refusing answer to `asked` stands for."""
    status, problem = response.status_code, _problem(response)
    text = f"{asked} was answered {status}: {problem.get('detail', response.text)}"
    if status in PASSING:
        return ServerUnavailableError(text, hint=problem.get("hint"))
    if status < 400:
        return unreadable(asked, response)
    kind = RequestRefusedError if status < 500 else ServerFailedError
    return kind(text, status=status, problem=problem)


def unreadable(asked: str, response: httpx.Response) -> ServerFailedError:
    """For an answer that is none of this API's: a proxy's page, a redirect."""
    return ServerFailedError(
        f"{asked} was answered {response.status_code} with something else than this API's answer: "
        f"{response.text[:80]!r}.",
        status=response.status_code,
        problem={},
        hint="Is the URL that of a Tidemill API of this version, and does nothing in between answer in its place?",
    )


def unanswered(asked: str, error: httpx.RequestError) -> ServerUnavailableError:
    """For a request that nothing came back for."""
    return ServerUnavailableError(
        f"{asked} got no answer: {type(error).__name__}: {error}.",
        hint="Is the API running? `tidemill up` starts it.",
    )


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
