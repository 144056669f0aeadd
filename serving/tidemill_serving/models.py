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
_MOST_SKIPPED = 63  # looks, one of them each second


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
        self._seen: tuple[int, dict[str, Model]] | None = None
        self._looks_to_skip = self._pause = 0
        self.served: Mapping[str, ServedModel] = MappingProxyType({})
        self.failures: Mapping[str, str] = MappingProxyType({})

    def refresh(self, catalog: Catalog) -> bool:
        """Load what was promoted since the last look. A version that cannot be loaded leaves the old one serving, and
        is tried again: its files may arrive later than the word that it was promoted.

        Returns whether anything changed. Raises UnavailableError where the metadata database does not answer.
        """
        declared = {model.name: model for model in catalog.models}
        seen = self._deployments.newest_number(), declared
        if seen == self._seen and not self._is_worth_another_try():
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
                if failures[name] != self.failures.get(name):
                    _log.error("Model %s version %d cannot be served: %s", name, deployment.version, error)
        kept = {name: item for name, item in served.items() if name in declared}
        changed = kept != self.served
        self.served, self.failures = MappingProxyType(kept), MappingProxyType(failures)
        self._pause = min(2 * self._pause + 1, _MOST_SKIPPED) if failures else 0
        self._seen, self._looks_to_skip = seen, self._pause
        return changed

    def _is_worth_another_try(self) -> bool:
        """What failed is tried again after a look, after three, after seven."""
        self._looks_to_skip -= 1
        return bool(self.failures) and self._looks_to_skip < 0

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
