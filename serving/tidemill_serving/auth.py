"""Who may ask: a bearer token for the API and another, if set, for `/v1/admin`.

Browsers cannot send a bearer token by hand, so the same token is taken as the password of HTTP Basic. Liveness and
readiness are open: whoever probes them learns nothing and holds no secrets.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from tidemill.settings import Settings
from tidemill_serving.problems import UnauthorizedError

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/health"})
_ADMIN = "/v1/admin/"


@dataclass(frozen=True, kw_only=True, repr=False)
class Tokens:
    """The tokens in force; None where none is asked for. Never printed."""

    api: bytes | None
    admin: bytes | None

    @classmethod
    def of(cls, settings: Settings) -> Tokens:
        api = None if settings.api_token is None else settings.api_token.get_secret_value().encode()
        admin = None if settings.admin_token is None else settings.admin_token.get_secret_value().encode()
        return cls(api=api, admin=admin or api)

    def check(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise UnauthorizedError unless the request may be answered. Takes the same time for any wrong token."""
        wanted = self.admin if path.startswith(_ADMIN) else self.api
        if wanted is None or path in OPEN_PATHS:
            return
        given = _token(headers)
        if self._matches(given, wanted) or (wanted is self.api and self.admin and self._matches(given, self.admin)):
            return
        found = "no token" if given is None else "a token that is not valid"
        raise UnauthorizedError(
            f"The request carries {found}.", hint="Send the header `Authorization: Bearer <token>`."
        )

    @staticmethod
    def _matches(given: bytes | None, wanted: bytes) -> bool:
        return given is not None and hmac.compare_digest(given, wanted)


def _token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return rest.strip()
            if scheme.lower() == b"basic":
                return _password(rest)
    return None


def _password(encoded: bytes) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        return None
