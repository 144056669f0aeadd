"""Reading the URL of a database without ever showing what is secret in it."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tidemill.errors import ConfigurationError

_EXAMPLE = "Write e.g. postgresql+psycopg://user:password@host/database"


def parsed(text: str, *, name: str) -> URL:
    """The URL, which messages call `name`. Raises ConfigurationError for what is none, or none that people meant."""
    try:
        found = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"{name} is not a database's URL.", hint=f"{_EXAMPLE}.") from None
    if "@" in (found.host or ""):
        raise ConfigurationError(
            f"{name} has more than one @, so that a part of the password would be taken for the host.",
            hint=f"{_EXAMPLE}, with %40 for an @ of the user or the password.",
        )
    return found
