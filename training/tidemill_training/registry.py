"""Experiments and registered versions in MLflow. The only module that imports it, and only when something is written.

What serves is decided by the deployments table; MLflow's aliases repeat it for people and for MLflow's own clients.
Whatever is read here in everyday work (lists, artifacts) comes from the artifacts' folder, so that it takes no import.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tidemill.errors import UnavailableError
from tidemill.metadata.migrations import ALEMBIC
from tidemill.models.deployments import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from tidemill.models.manifest import Manifest
    from tidemill.project import Project

_STATE_TAG = "tidemill.state"
_QUIET = ("mlflow", "alembic")


class Registry:
    """MLflow's tracking and registry of a project: a SQLite file in its state folder, or the server that is set."""

    def __init__(self, project: Project) -> None:
        self._project = project
        settle_process()
        self._client = _client(_tracking_uri(project))

    @classmethod
    @contextmanager
    def opening(cls, project: Project) -> Iterator[Future[Self]]:
        """Open in the background: the import and the first start's tables take seconds that other work can use.

        Waited for at the end even where that work fails, so that nothing goes on in a project that its caller closes.
        """
        settle_process()  # here, where nothing else runs yet: a thread would change it under the others
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow") as pool:
            yield pool.submit(cls, project)

    def registered_name(self, model: str) -> str:
        """With the project's name, since several projects may share a server."""
        return f"{self._project.name}.{model}"

    def start_run(self, model: str, *, params: Mapping[str, Any], tags: Mapping[str, str], at: datetime) -> str:
        """Begin a run in the model's experiment; returns its id."""
        with _explained():
            tags = dict(tags) | {"mlflow.runName": f"{model} until {at:%Y-%m-%d %H:%M}"}
            run = self._client.create_run(self._experiment(model), tags=tags)
            self._client.log_batch(run.info.run_id, params=_params(params))
        return run.info.run_id

    def reserve(self, model: str, run_id: str, folder: Path) -> int:
        """Register the next version, whose artifact will be written to `folder / version`; returns the version.

        MLflow counts, so that two trainings never get the same number. A training that ends here leaves a version
        without an artifact, which nothing lists or serves; the next one gets the next number.
        """
        name = self.registered_name(model)
        with _explained():
            self._ensure_model(name)
            found = self._client.create_model_version(
                name, source=folder.as_uri(), run_id=run_id, tags={_STATE_TAG: "reserved"}
            )
        return int(found.version)

    def complete(self, manifest: Manifest, folder: Path) -> None:
        """Put metrics, dataset and artifact of a version into its run, and end the run."""
        with _explained():
            run_id = manifest.run_id
            self._client.log_batch(run_id, metrics=_metrics(manifest.metrics))
            self._client.log_inputs(run_id, datasets=[_dataset(manifest, self._project.name)])
            self._client.log_artifacts(run_id, str(folder), "model")
            self._client.set_terminated(run_id, "FINISHED")
            name = self.registered_name(manifest.name)
            self._client.set_model_version_tag(name, str(manifest.version), _STATE_TAG, "complete")

    def abandon(self, run_id: str, reason: str) -> None:
        """End a run that came to nothing."""
        with _explained():
            self._client.set_tag(run_id, "tidemill.error", reason[:5_000])
            self._client.set_terminated(run_id, "FAILED")

    def mirror_aliases(self, model: str) -> None:
        """Let MLflow's aliases say what the deployments table says. Done after every change, so that what a process
        killed between the two left behind is made good by the next."""
        name = self.registered_name(model)
        for alias in (CHAMPION, CHALLENGER):
            deployment = self._project.deployments.current(model, alias)
            if deployment is not None:
                with _explained():
                    self._client.set_registered_model_alias(name, alias, str(deployment.version))

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version, as MLflow has it."""
        with _explained():
            found = self._client.get_registered_model(self.registered_name(model))
        return {alias: int(version) for alias, version in found.aliases.items()}

    def run(self, run_id: str) -> Any:
        """MLflow's own run: `.data.params`, `.data.metrics`, `.data.tags`, `.inputs`."""
        with _explained():
            return self._client.get_run(run_id)

    def _experiment(self, model: str) -> str:
        name = f"{self._project.name}/{model}"
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        if self._project.settings.mlflow_tracking_uri is not None:
            return self._client.create_experiment(name)
        artifacts = self._project.state / "mlflow-artifacts"
        return self._client.create_experiment(name, artifact_location=artifacts.as_uri())

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _tracking_uri(project: Project) -> str:
    if project.settings.mlflow_tracking_uri is not None:
        return project.settings.mlflow_tracking_uri
    project.state.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{project.state / 'mlflow.db'}"


@cache
def settle_process() -> None:
    """What MLflow finds in its process: its environment, and which of its warnings are shown. Done once, and before
    other threads are at work by whoever trains beside them."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a laptop on its own tells nobody what it trains
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # MLflow's own use of SQLAlchemy is nothing that a user of ours could mend.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\.")


def _client(uri: str) -> Any:
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    with _explained(), ALEMBIC:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _explained() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise UnavailableError(
            f"MLflow refused or does not answer: {error.message}", hint="Check `mlflow_tracking_uri` and its server."
        ) from error


def _params(params: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)[:6_000]) for name, value in params.items()]


def _metrics(metrics: Mapping[str, float]) -> list[Any]:
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1_000)  # MLflow's own bookkeeping is on the wall clock
    return [Metric(f"test_{name}", value, now, 0) for name, value in metrics.items()]


def _dataset(manifest: Manifest, project: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    record = manifest.dataset
    found = Dataset(
        name=f"{project}.{manifest.service}",
        digest=record.digest[:36],  # what MLflow has room for; the whole is in the run's tags
        source_type="tidemill",
        source=f'{{"start": "{record.start.isoformat()}", "until": "{record.until.isoformat()}"}}',
    )
    return DatasetInput(found, [InputTag("mlflow.data.context", "training")])
