"""What Redis, or the way to it, says no with: turned into errors that say what to do."""

from __future__ import annotations

import re
from typing import Any

import hiredis
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.sentinel import MasterNotFoundError

from tidemill.errors import ConflictError, OnlineStoreUnavailableError

_NOT_NOW = ("LOADING", "BUSY ", "OOM", "READONLY", "MISCONF", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS")
_CLUSTER = ("MOVED", "ASK ", "CROSSSLOT", "CLUSTERDOWN")
_WRONG_TYPE = "WRONGTYPE"
_INSIDE_SCRIPT = re.compile(f": -?((?:{'|'.join((*_NOT_NOW, *_CLUSTER, _WRONG_TYPE))}).*)", re.DOTALL)


class RedisReplyError(Exception):
    """Redis refused a command: a defect of ours, or a Redis too old."""


class ConnectionLostError(ConnectionError):
    """The connection ended while replies were due."""


class WrongKindError(ConflictError):
    """A key of the online store holds something of another kind, which somebody else has put there.

    `replies` has all that was answered, the refusals included.
    """

    def __init__(self, replies: list[Any]) -> None:
        super().__init__(
            "A key of the online store holds something of another kind, which Tidemill did not write.",
            hint="Find who else uses this Redis, give one of them another database, and delete the key.",
        )
        self.replies = replies


class ClusterError(OnlineStoreUnavailableError):
    """This Redis is part of a Redis Cluster, which Tidemill does not use."""

    def __init__(self, text: str = "cluster mode is enabled") -> None:
        super().__init__(
            f"This Redis is part of a Redis Cluster ({text}), which cannot be used: one write compares and stores the "
            "keys of many entities at once, and a Cluster would keep them on several servers.",
            hint="Set `redis_url` to a Redis that is not in cluster mode, or to Sentinels for high availability.",
        )


def accepted(replies: list[Any]) -> list[Any]:
    """The replies, unless Redis refused a command."""
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise _refusal(reply, replies)
    return replies


def is_refusal(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError)


def too_slow(timeout: float) -> OnlineStoreUnavailableError:
    return OnlineStoreUnavailableError(
        f"Redis did not answer within {timeout:g} s.", hint="Look at its load, or raise `redis_timeout`."
    )


def gone(error: BaseException) -> OnlineStoreUnavailableError:
    """Redis cannot be reached, or will not have us."""
    if isinstance(error, MasterNotFoundError):
        return OnlineStoreUnavailableError(
            "None of the Sentinels answers with a master of that name.",
            hint="Check that they run and what `redis_url` names; they are asked again at the next request.",
        )
    if isinstance(error, AuthenticationError | NoPermissionError):
        return _unwelcome(str(error))
    text = str(error).rstrip(".")
    return OnlineStoreUnavailableError(
        f"Redis does not answer: {text}.", hint="Check that it runs; it is asked again at the next request."
    )


def _refusal(reply: hiredis.ReplyError, replies: list[Any]) -> Exception:
    text = _inner(str(reply))
    if text.startswith(_NOT_NOW):
        return OnlineStoreUnavailableError(f"Redis cannot do this now: {text.rstrip('.')}.", hint=_advice(text))
    if text.startswith(_CLUSTER):
        return ClusterError(text)
    if text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
        return _unwelcome(text)
    if text.startswith(_WRONG_TYPE):
        return WrongKindError(replies)
    return RedisReplyError(text)


def _unwelcome(text: str) -> OnlineStoreUnavailableError:
    hint = "Check user and password in `redis_url`."
    if "NOPERM" in text or "no permissions" in text:
        hint = "Give the user of `redis_url` +@read +@write +@scripting +@connection +info +wait on all keys (~*)."
    return OnlineStoreUnavailableError(f"Redis refused us: {text}.", hint=hint)


def _inner(text: str) -> str:
    """What a command inside a script was refused for: `ERR Error running script ...: -OOM ...` is an OOM."""
    inside = _INSIDE_SCRIPT.search(text)
    return inside[1] if inside and text.startswith("ERR Error running script") else text


def _advice(text: str) -> str:
    if text.startswith("OOM"):
        return "It is full: raise `redis_maxmemory` (or the server's maxmemory), or remove views that nobody reads."
    if text.startswith("MISCONF"):
        return "It cannot write to its disk: make room there; it takes writes again by itself."
    if text.startswith("LOADING"):
        return "It is loading its data after a start; ask again in a moment."
    return "Ask again in a moment."
