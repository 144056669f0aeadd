"""`predict`: one prediction of the champion, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tidemill.cli.options import EntityOption, JsonOption, ModelArgument, ProjectOption, open_for_command, output
from tidemill.cli.rows import typed_row
from tidemill.errors import NotDefinedError

if TYPE_CHECKING:
    from tidemill.models.deployments import Deployment
    from tidemill.project import Project


def register(app: typer.Typer) -> None:
    app.command()(predict)


def predict(
    model: ModelArgument,
    entity: EntityOption,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Make one prediction with the champion, from features read online. It is not logged; the API's are."""
    from tidemill.models.artifact import ModelArtifact

    out = output(json)
    opened = open_for_command(project)
    definition = opened.catalog.model(model)
    deployment = _champion(opened, model)
    read = opened.online.read(definition.service, [typed_row(opened.catalog, entity)], at=opened.clock.now())
    artifact = ModelArtifact.load(deployment.folder(opened.root), digest=deployment.digest)
    prediction = float(artifact.predict(read.values)[0])
    missing = [name for name in read.names if read.statuses[name][0].name != "PRESENT"]
    now = opened.clock.now()
    out.say(f"{prediction:.4f}  {model} version {deployment.version} at {now:%Y-%m-%d %H:%M} UTC")
    out.say(f"{len(read.names) - len(missing)} of {len(read.names)} features present.")
    if missing:
        out.say(f"Without a value: {', '.join(f'{name} ({read.statuses[name][0].name})' for name in missing)}.")
    out.result(
        {
            "model": model,
            "version": deployment.version,
            "prediction": prediction,
            "features": {name: read.values[name][0] for name in read.names},
            "statuses": {name: read.statuses[name][0].name for name in read.names},
        }
    )


def _champion(project: Project, model: str) -> Deployment:
    deployment = project.deployments.current(model)
    if deployment is None:
        raise NotDefinedError("champion", model, [item.model for item in project.deployments.champions()])
    return deployment
