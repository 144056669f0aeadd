"""`ArrowComputeEngine`: Feast's `materialize` through Tidemill's writer, column by column."""

from __future__ import annotations

from typing import Literal

from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.repo_config import FeastConfigBaseModel


class ArrowComputeEngineConfig(FeastConfigBaseModel):
    """`batch_engine:` in `feature_store.yaml`."""

    type: Literal["tidemill.feast.engine.ArrowComputeEngine"] = "tidemill.feast.engine.ArrowComputeEngine"


class ArrowComputeEngine(LocalComputeEngine):
    pass
