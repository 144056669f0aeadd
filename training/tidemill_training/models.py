"""The registry in everyday use: which versions there are, which one serves, and changing that by hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidemill.errors import ConflictError, NotDefinedError, TidemillError, UnavailableError
from tidemill.models.artifact import ModelArtifact, read_manifest
from tidemill.models.deployments import CHALLENGER, CHAMPION, ROLLED_BACK, Deployment, previous_champion
from tidemill.models.manifest import Manifest
from tidemill_training.dataset import feature_types
from tidemill_training.registry import Registry
from tidemill_training.train import deploy
from tidemill_training.versions import folder_of, resolve, versions_of

if TYPE_CHECKING:
    from tidemill.project import Project

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ListedVersion:
    """A version with the aliases that name it now. `manifest` is None where it cannot be read; `problem` says why."""

    model: str
    version: int
    aliases: tuple[str, ...]
    manifest: Manifest | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownVersion:
    """A version in full, with every change of the model's champion, newest first."""

    manifest: Manifest
    digest: str
    aliases: tuple[str, ...]
    history: tuple[Deployment, ...]


def list_versions(project: Project, model: str | None = None) -> list[ListedVersion]:
    """Every version of one model or of all, newest first. Raises NotDefinedError for an unknown model."""
    known = sorted({item.name for item in project.catalog.models} | _with_artifacts(project))
    if model is not None and model not in known:
        raise NotDefinedError("model", model, known)
    return [
        _listed(project, name, version)
        for name in known
        if model in (None, name)
        for version in reversed(versions_of(project, name))
    ]


def show(project: Project, reference: str) -> ShownVersion:
    """What `arrival_delay@champion` or `arrival_delay@3` is. Raises NotDefinedError."""
    model, version = resolve(project, reference)
    manifest, digest = read_manifest(folder_of(project, model, version))
    history = tuple(project.deployments.history(model, CHAMPION))
    return ShownVersion(manifest=manifest, digest=digest, aliases=_aliases(project, model, version), history=history)


def promote(
    project: Project, reference: str, *, reason: str = "promoted by hand", at: datetime | None = None
) -> Deployment:
    """Let a version serve, whatever its gates said. It is loaded first, so that what serves can be served.

    Raises NotDefinedError, InputError for a damaged artifact, or DefinitionError where the applied definitions no
    longer give what the version reads.
    """
    model, version = resolve(project, reference)
    return _make_champion(project, model, version, reason=reason, at=at or project.clock.now())


def rollback(project: Project, model: str, *, reason: str = "by hand", at: datetime | None = None) -> Deployment:
    """Go back to the champion before the present one; once more, to the one before that.

    Raises ConflictError where there is none to go back to, and what `promote` raises.
    """
    history = project.deployments.history(model, CHAMPION)
    if not history:
        project.catalog.model(model)
        raise ConflictError(f"Model {model!r} has no champion to roll back.", hint=f"Run `tidemill train {model}`.")
    previous = previous_champion(history)
    if previous is None:
        raise ConflictError(
            f"Version {history[0].version} is the first champion of {model!r}; there is none to go back to.",
            hint=f"Promote another version: `tidemill models promote {model}@N`.",
        )
    text = f"{ROLLED_BACK} {history[0].version}: {reason}"
    return _make_champion(project, model, previous.version, reason=text, at=at or project.clock.now())


def _make_champion(project: Project, model: str, version: int, *, reason: str, at: datetime) -> Deployment:
    artifact = ModelArtifact.load(
        folder_of(project, model, version), digest=_registered_digest(project, model, version)
    )
    _check_servable(project, artifact)
    deploy(project, artifact, alias=CHAMPION, reason=reason, at=at)
    _mirror(project, model)
    current = project.deployments.current(model)
    if current is None or current.version != version:
        raise ConflictError(f"The champion of {model!r} was changed meanwhile; look again and repeat.")
    return current


def _mirror(project: Project, model: str) -> None:
    """MLflow repeats who serves; that it does not answer must not keep a bad champion in service."""
    try:
        Registry(project).mirror_aliases(model)
    except UnavailableError as error:
        _log.warning("MLflow's aliases of %s follow with its next change: %s", model, error)


def _check_servable(project: Project, artifact: ModelArtifact) -> None:
    """Raise NotDefinedError or ConflictError where the definitions in force do not give the model's inputs."""
    manifest = artifact.manifest
    given = dict(feature_types(project.catalog, manifest.service))
    missing = [feature.name for feature in manifest.features if given.get(feature.name) != feature.dtype]
    if missing:
        raise ConflictError(
            f"Service {manifest.service!r} no longer gives {', '.join(missing)} as {manifest.name}@{manifest.version} "
            "reads them.",
            hint="Apply the definitions it was trained with, or train again.",
        )


def _registered_digest(project: Project, model: str, version: int) -> str | None:
    """The digest under which a version was deployed before; every trained version was, as challenger."""
    return next((found.digest for found in project.deployments.history(model) if found.version == version), None)


def _listed(project: Project, model: str, version: int) -> ListedVersion:
    aliases = _aliases(project, model, version)
    try:
        manifest, _ = read_manifest(folder_of(project, model, version))
    except TidemillError as error:
        return ListedVersion(model=model, version=version, aliases=aliases, manifest=None, problem=str(error))
    return ListedVersion(model=model, version=version, aliases=aliases, manifest=manifest)


def _aliases(project: Project, model: str, version: int) -> tuple[str, ...]:
    named = {alias: project.deployments.current(model, alias) for alias in (CHAMPION, CHALLENGER)}
    return tuple(alias for alias, found in named.items() if found is not None and found.version == version)


def _with_artifacts(project: Project) -> set[str]:
    folder = project.state / "models"
    if not folder.is_dir():
        return set()
    return {item.name for item in folder.iterdir() if versions_of(project, item.name)}
