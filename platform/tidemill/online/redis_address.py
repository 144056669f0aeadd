"""From the address of a Redis to a redis-py client that knows how to connect there.

    unix:///path?db=0
    redis://user:password@host:6379/0
    rediss://host:6380/0?ssl_ca_certs=/path/ca.pem                  over TLS
    redis+sentinel://user:password@host:26379,host:26379/name?db=0&sentinel_password=...
    rediss+sentinel://...                                           Sentinel, all over TLS

User and password are percent-encoded, as in any URL. Behind Sentinel the master of that `name` is asked for at every
new connection, so that a failover needs nothing from anybody.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tidemill.errors import ConfigurationError

_SENTINEL = ("redis+sentinel://", "rediss+sentinel://")
_SENTINEL_PORT = 26_379
_EXPECTED = (
    "Write unix:///path, redis://user:password@host:port, rediss://host:port or redis+sentinel://host:port,host:port/name;"
    " in user and password %40 for @, %2F for /, %3F for ?, %23 for #."
)


def is_sentinel(address: str) -> bool:
    """Whether the address names Sentinels, behind which another server may become the master at any time."""
    return address.startswith(_SENTINEL)


def connect(address: str, *, timeout: float) -> redis.Redis:
    """A redis-py client for an address. Nothing is opened yet. Raises ConfigurationError for what is no address.

    redis-py itself tries nothing again: whoever asks decides that, and has been promised an answer in time.
    """
    limits: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        if not address.startswith("unix://"):
            _refuse_broken_login(address)
        if is_sentinel(address):
            return _through_sentinel(address, limits)
        if address.startswith("unix://"):
            limits.pop("socket_connect_timeout")
        found = redis.Redis.from_url(address, **limits)
        found.connection_pool.make_connection()  # opens nothing, but takes no option that it does not know
        return found
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"This is not the address of a Redis: {error}.", hint=_EXPECTED) from None


def leave_sentinels(client: redis.Redis) -> None:
    """Close what the Sentinels were asked through. They are asked again only for another connection, and redis-py would
    keep theirs open for as long as the client lives."""
    asked = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in asked.sentinels if asked is not None else ():
        sentinel.connection_pool.disconnect(inuse_connections=False)  # other threads may be asking


def _refuse_broken_login(address: str) -> None:
    """A password with a `/`, `#` or `?` of its own ends the host's part of a URL early: its beginning would be taken
    for a port, and be shown."""
    parts = urlsplit(address)
    if "@" not in parts.netloc and "@" in parts.path + parts.query.partition("=")[0] + parts.fragment:
        raise ValueError("its user and password cannot be told apart from the rest")
    if not is_sentinel(address):
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("its port is not a number") from None


def _through_sentinel(address: str, limits: dict[str, Any]) -> redis.Redis:
    parts = urlsplit(address)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options = dict(parse_qsl(parts.query))
    common: dict[str, Any] = limits | ({"ssl": True} if parts.scheme.startswith("rediss") else {})
    sentinels_own = [name for name in options if name.startswith("sentinel_")]
    own: dict[str, Any] = {name.removeprefix("sentinel_"): options.pop(name) for name in sentinels_own}
    database = int(options.pop("db", "0"))
    common |= options  # ssl_ca_certs and the like
    found = redis.Sentinel([_node(host) for host in hosts.split(",")], sentinel_kwargs=common | own, **common)
    master = unquote(parts.path.strip("/")) or "mymaster"
    account = {"username": unquote(user) or None, "password": unquote(password) or None, "db": database}
    return found.master_for(master, **(common | account))


def _node(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if text.rpartition(":")[2].isdigit() else (text, "", "")
    if not host.strip("[]"):
        raise ValueError(f"{text!r} names no host")
    return host.strip("[]"), int(port or _SENTINEL_PORT)
