"""`tidemill clock`: what time it is for the project."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from tidemill.cli.options import JsonOption, ProjectOption, instant, open_for_command, output

clock_app = typer.Typer(
    help="What time it is for the project; a simulated clock replays history.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(clock_app, name="clock")


@clock_app.command("show")
def show(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Say what time it is, and whether the clock is simulated."""
    clock = _clock(project)
    out = output(json)
    kind = "simulated" if clock.simulated else "the wall clock"
    out.say(f"{clock.now():%Y-%m-%d %H:%M:%S} UTC ({kind})")
    out.result({"now": clock.now(), "simulated": clock.simulated})


@clock_app.command("set")
def set_clock(
    at: Annotated[datetime, typer.Argument(parser=instant, metavar="INSTANT")],
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Stand still at an instant until it is set again; every process of the project sees it at once."""
    clock = _clock(project)
    clock.set(at)
    out = output(json)
    out.say(
        f"It is {at:%Y-%m-%d %H:%M:%S} UTC for this project now. `tidemill clock release` goes back to the present."
    )
    out.result({"now": at, "simulated": True})


@clock_app.command("release")
def release(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Go back to the wall clock."""
    _clock(project).release()
    out = output(json)
    out.say("This project is on the wall clock again.")
    out.result({"simulated": False})


def _clock(project: ProjectOption):
    from tidemill.clock import SimulatedClock
    from tidemill.errors import ConfigurationError

    clock = open_for_command(project).clock
    if not isinstance(clock, SimulatedClock):
        raise ConfigurationError("This project was opened with a clock of its own.")
    return clock
