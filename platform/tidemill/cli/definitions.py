"""`init`, `plan`, `apply`: a project and its definitions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.options import JsonOption, ProjectOption, open_for_command, output


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(plan)
    app.command()(apply)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to make the project; must not exist or be empty.")],
    data: Annotated[Path | None, typer.Option(help="Your own Parquet or CSV file to start from.")] = None,
    key: Annotated[str | None, typer.Option(help="Its key column; guessed where it is plain.")] = None,
    time: Annotated[str | None, typer.Option(help="Its event time column; guessed where it is plain.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a new project for your own data, that runs as it stands."""
    from tidemill.scaffold import create_project

    out = output(json)
    made = create_project(folder, data=data, key=key, time=time)
    features = ", ".join(f"{name} ({dtype})" for name, dtype in made.features)
    out.say(f"Made a project in {folder}; {made.entity!r} has the features: {features}.")
    out.say(f"Its key is {made.key!r}, its event time {made.time!r}{_between(made.first, made.last)}.")
    out.say("Times without a zone are taken for UTC. --key and --time name other columns.")
    if made.day_first:
        out.warn(
            f"Dates such as {made.day_first} were read with the day first; where it is the month, write 2024-03-25."
        )
    if made.left_out:
        out.warn(f"Left out, since no feature can hold their type: {', '.join(made.left_out)}.")
    out.say("What to try next:")
    for line in made.commands:
        out.say(f"  {line}")
    out.result(made)


def _between(first: datetime | None, last: datetime | None) -> str:
    return "" if first is None or last is None else f", from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def plan(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Say what `apply` would change: views, data to rebuild, models that break."""
    from tidemill.feast.apply import plan as make_plan

    out = output(json)
    found = make_plan(open_for_command(project))
    for line in found.lines:
        out.say(line)
    out.result(found)


def apply(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Put the definitions in force: Feast's registry and the compiled catalog."""
    from tidemill.feast.apply import apply as apply_definitions

    out = output(json)
    opened = open_for_command(project)
    result = apply_definitions(opened, at=opened.clock.now())
    for line in result.lines:
        out.say(line)
    out.result(result)
