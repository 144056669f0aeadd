"""The online store of a catalog on a Redis that is there already."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from tidemill.clock import ManualClock
from tidemill.definitions.catalog import Catalog
from tidemill.online.store import OnlineStore
from tidemill.settings import Settings


def open_store(catalog: Catalog, address: str, *, at: datetime, root: Path = Path(), **settings: Any) -> OnlineStore:
    """The store, to be closed by the test; its clock stands at `at`, what is not among `settings` is the default."""
    return OnlineStore(
        address=address,
        project=catalog.project,
        catalog=catalog,
        settings=Settings(**settings),
        root=root,
        clock=ManualClock(at),
    )
