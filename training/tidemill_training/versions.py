"""Where the artifacts of a project's models lie: `<state>/models/<model>/<version>/`."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.errors import ConflictError, InputError, NotDefinedError
from tidemill.models.deployments import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from tidemill.project import Project


def folder_of(project: Project, model: str, version: int | None = None) -> Path:
    """The folder of a model's artifacts, or of one version; it need not exist."""
    folder = project.state / "models" / model
    return folder if version is None else folder / str(version)


def stored_path(project: Project, folder: Path) -> str:
    """A folder as the deployments table keeps it: relative to the project's folder, so that a project can move."""
    return folder.relative_to(project.root).as_posix() if folder.is_relative_to(project.root) else str(folder)


def versions_of(project: Project, model: str) -> list[int]:
    """The versions that have an artifact, ascending."""
    folder = folder_of(project, model)
    found = folder.iterdir() if folder.is_dir() else iter(())
    return sorted(int(item.name) for item in found if item.name.isdigit())


def resolve(project: Project, reference: str) -> tuple[str, int]:
    """Model and version that `arrival_delay@champion`, `arrival_delay@3` or `arrival_delay` (its champion) names.

    Raises NotDefinedError for an unknown model, alias or version.
    """
    model, _, which = reference.partition("@")
    known = versions_of(project, model)
    if not known:
        project.catalog.model(model)
        raise NotDefinedError("version of the model", reference, [])
    if which.isdigit():
        if int(which) not in known:
            raise NotDefinedError("model version", reference, [f"{model}@{version}" for version in known])
        return model, int(which)
    deployment = project.deployments.current(model, which or CHAMPION)
    if deployment is None:
        aliases = [alias for alias in (CHAMPION, CHALLENGER) if project.deployments.current(model, alias)]
        raise NotDefinedError("model version", reference, [f"{model}@{name}" for name in (*aliases, *known)])
    return model, deployment.version


@contextmanager
def trained_by_us(project: Project, model: str) -> Iterator[None]:
    """Hold the right to train a model on this machine; given up when the process ends, however it ends.

    What a killed training left half written is removed. Raises ConflictError where another process trains it now.
    """
    if "/" in model or model.startswith("."):
        raise InputError(f"{model!r} cannot be the name of a folder.")
    folder = folder_of(project, model)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"Model {model!r} is being trained by another process.", hint="Wait until it is done, then look again."
            ) from None
        for left in folder.glob(".[0-9]*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
