"""`tidemill doctor`: what this machine and this project have, and what to do about what is missing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.errors import ConflictError, TidemillError

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.project import Project

_ROOM = 2 * 2**30  # bytes below which a run may not end


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One part that was looked at. `advice` says what to do where `ok` is false."""

    part: str
    ok: bool
    found: str
    advice: str = ""


def examine(root: Path) -> list[Finding]:
    """Look at every part in turn; one that fails does not keep the next from being looked at."""
    return list(_findings(root))


def show(findings: list[Finding], out: Output) -> bool:
    """Print the findings; True if everything is well."""
    out.table("Doctor", ("part", "well", "found"), [(f.part, f.ok, f.found) for f in findings])
    for advice in dict.fromkeys(finding.advice for finding in findings if not finding.ok and finding.advice):
        parts = ", ".join(finding.part for finding in findings if not finding.ok and finding.advice == advice)
        out.warn(f"{parts}: {advice}")
    out.result(findings)
    return all(finding.ok for finding in findings)


def _findings(root: Path) -> Iterator[Finding]:
    yield Finding(
        part="python",
        ok=sys.version_info >= (3, 11),
        found=sys.version.split()[0],
        advice="Use Python 3.11 or newer.",
    )
    yield _redis_server()
    yield _room(root)
    try:
        from tidemill.project import open_project

        project = open_project(root)
    except TidemillError as error:
        yield Finding(part="project", ok=False, found=error.message, advice=error.hint or "")
        return
    yield Finding(part="project", ok=True, found=f"{project.name} in {project.root}")
    parts: tuple[tuple[str, Callable[[Project], str]], ...] = (
        ("metadata database", _metadata),
        ("definitions", _definitions),
        ("online store", _online),
        ("online data", _loaded),
        ("champions", _champions),
    )
    for part, look in parts:
        yield _looked_at(part, look, project)
    project.close()


def _looked_at(part: str, look: Callable[[Project], str], project: Project) -> Finding:
    try:
        return Finding(part=part, ok=True, found=look(project))
    except TidemillError as error:
        return Finding(part=part, ok=False, found=error.message, advice=error.hint or "")


def _redis_server() -> Finding:
    from tidemill.online.embedded import find_server

    try:
        return Finding(part="redis-server", ok=True, found=str(find_server()))
    except TidemillError as error:
        return Finding(part="redis-server", ok=False, found=error.message, advice=error.hint or "")


def _room(root: Path) -> Finding:
    free = shutil.disk_usage(root if root.exists() else Path.cwd()).free
    return Finding(
        part="disk", ok=free > _ROOM, found=f"{free / 2**30:.1f} GB free", advice="Make room: 2 GB are a safe minimum."
    )


def _metadata(project: Project) -> str:
    version = project.catalogs.newest_version()
    return f"answers; definitions up to version {version}" if version else "answers; no definitions yet"


def _definitions(project: Project) -> str:
    applied = project.applied
    return f"version {applied.version}, digest {applied.catalog.digest[:12]}, views: {len(applied.catalog.views)}"


def _online(project: Project) -> str:
    project.online.ping()
    return "answers"


def _loaded(project: Project) -> str:
    from tidemill.materialize.reach import never_loaded

    missing = never_loaded(project, project.clock.now())
    if missing:
        raise ConflictError(
            f"never loaded: {', '.join(missing)}", hint="Run `tidemill materialize`, or wait for the schedule."
        )
    return "every view was loaded"


def _champions(project: Project) -> str:
    found = []
    for model in project.catalog.models:
        current = project.deployments.current(model.name)
        found.append(f"{model.name} version {current.version}" if current else f"{model.name}: none yet")
    return ", ".join(found) or "no model is declared"
