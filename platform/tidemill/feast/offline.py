"""`PolarsOfflineStore`: Feast's offline store over Parquet and Delta, on Tidemill's point-in-time engine."""

from __future__ import annotations

from typing import Literal

from feast.infra.offline_stores.offline_store import OfflineStore
from feast.repo_config import FeastConfigBaseModel

from tidemill.feast.registry_path import resolve_registry_paths

resolve_registry_paths()


class PolarsOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` in `feature_store.yaml`."""

    type: Literal["tidemill.feast.offline.PolarsOfflineStore"] = "tidemill.feast.offline.PolarsOfflineStore"


class PolarsOfflineStore(OfflineStore):
    """Historical features in event mode, exact for every invariant of the semantics."""

    supports_filter_by_created_timestamp = True
