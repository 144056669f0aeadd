"""The models a process serves: loaded and warmed up in the background, swapped in one assignment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tidemill.definitions.catalog import Catalog, Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelArtifact
from tidemill.models.deployments import Deployment, DeploymentRepository
from tidemill_serving.lean_imports import without

_log = logging.getLogger("tidemill.serving")


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A version of a model that is loaded and has predicted once."""

    model: Model
    deployment: Deployment
    artifact: ModelArtifact

    @property
    def version(self) -> int:
        return self.deployment.version

    @property
    def service(self) -> str:
        """The feature service this version was trained on."""
        return self.artifact.manifest.service


class ModelShelf:
    """Champions by model name. `refresh` runs in one background thread; everybody else only reads `served`."""

    def __init__(self, deployments: DeploymentRepository, root: Path) -> None:
        self._deployments, self._root = deployments, root
        self._seen: int | None = None
        self.served: Mapping[str, ServedModel] = MappingProxyType({})
        self.failures: Mapping[str, str] = MappingProxyType({})

    def refresh(self, catalog: Catalog) -> bool:
        """Load what was promoted since the last look. A version that cannot be loaded leaves the old one serving.

        Returns whether anything changed. Raises UnavailableError where the metadata database does not answer.
        """
        newest = self._deployments.newest_number()
        declared = {model.name: model for model in catalog.models}
        if newest == self._seen and declared == {name: item.model for name, item in self.served.items()}:
            return False
        served, failures = dict(self.served), {}
        for name, model in declared.items():
            deployment = self._deployments.current(name)
            if deployment is None:
                continue
            try:
                served[name] = self._load(model, deployment, served.get(name))
            except TidemillError as error:
                failures[name] = f"version {deployment.version}: {error}"
                _log.error("Model %s version %d cannot be served: %s", name, deployment.version, error)
        kept = {name: item for name, item in served.items() if name in declared}
        changed = kept != self.served
        self.served, self.failures = MappingProxyType(kept), MappingProxyType(failures)
        self._seen = newest
        return changed

    def _load(self, model: Model, deployment: Deployment, held: ServedModel | None) -> ServedModel:
        if held is not None and held.deployment.digest == deployment.digest and held.version == deployment.version:
            return ServedModel(model=model, deployment=deployment, artifact=held.artifact)
        with without():
            artifact = ModelArtifact.load(deployment.folder(self._root), digest=deployment.digest)
            warm_up(artifact)
        _log.info("Model %s version %d is loaded.", model.name, deployment.version)
        return ServedModel(model=model, deployment=deployment, artifact=artifact)


def warm_up(artifact: ModelArtifact) -> None:
    """Predict once for one row and once for many, so that the first request pays for nothing that is built lazily."""
    width = len(artifact.manifest.features)
    for rows in (1, 64):
        artifact.predict_matrix(np.zeros((rows, width), dtype=np.float64))


def single_threaded() -> Any:
    """Let the numeric libraries of this thread use one core: small models are many times slower when threads fight.

    Returns an object that has to be kept for as long as the limit shall hold.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)
