"""What one request may take: bytes, rows, a place in the queue, time."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.settings import Settings

HEAD_TIMEOUT = 10.0
"""Seconds a connection may stay open without sending a complete request head."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Read once from the settings. Times are in seconds."""

    body_bytes: int
    rows: int
    pending: int
    request_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            body_bytes=settings.max_body_bytes,
            rows=settings.max_rows,
            pending=settings.max_pending,
            request_seconds=settings.request_timeout,
        )
