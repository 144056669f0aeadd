"""The Python client of the HTTP API: `Client` waits, `AsyncClient` awaits.

    with Client("http://127.0.0.1:8000") as tide:
        answer = tide.predict("arrival_delay", [{"origin": "JFK", "carrier": "B6"}])
        answer[0].prediction

What failed for a passing reason (no connection, 429, 502, 503, 504) and may be done twice is tried again after a pause
that doubles and is drawn at random, so that many clients do not come back at once. A prediction that is asked for again
keeps its name, so that the log counts it once.
"""

from __future__ import annotations

from tidemill.client.answers import FeatureVectors, ModelInfo, Prediction, Predictions, PushReceipt
from tidemill.client.awaiting import AsyncClient
from tidemill.client.calls import Rows, Target
from tidemill.client.failures import RequestRefusedError, ServerFailedError, ServerUnavailableError
from tidemill.client.retry import Retry
from tidemill.client.waiting import Client

__all__ = [
    "AsyncClient",
    "Client",
    "FeatureVectors",
    "ModelInfo",
    "Prediction",
    "Predictions",
    "PushReceipt",
    "RequestRefusedError",
    "Retry",
    "Rows",
    "ServerFailedError",
    "ServerUnavailableError",
    "Target",
]
