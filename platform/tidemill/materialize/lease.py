"""Keeping a claim while the work lasts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from tidemill.errors import ConflictError, TidemillError
from tidemill.materialize.ledger import Ledger
from tidemill.materialize.records import Claim

_log = logging.getLogger(__name__)


@contextmanager
def kept(ledger: Ledger, claim: Claim, *more: Claim, at: datetime) -> Iterator[None]:
    """Renew the claims from a thread for as long as the block takes, which begins `at`.

    Raises ConflictError at the end of the block where one was taken over meanwhile.
    """
    over, began = threading.Event(), time.monotonic()
    lost: list[BaseException] = []

    def renew() -> None:
        while not over.wait(claim.lease.total_seconds() / 3):
            try:
                for one in (claim, *more):
                    ledger.renew(one, at=at + timedelta(seconds=time.monotonic() - began))
            except ConflictError as error:
                lost.append(error)
                return
            except TidemillError as error:  # the database is away for a moment; the lease is longer
                _log.warning("The claim could not be renewed: %s", error, extra={"action": "renew_failed"})

    thread = threading.Thread(target=renew, name="tidemill-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if lost:
        raise lost[0]
