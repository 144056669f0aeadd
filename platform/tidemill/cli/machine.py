"""`serve`, `up`, `down`, `status`, `doctor`, `demo`: what runs on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.options import (
    HostOption,
    JsonOption,
    PortOption,
    ProjectOption,
    find_project,
    open_for_command,
    output,
)


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(serve)
    app.command()(worker)
    app.command()(doctor)


def demo(
    days: Annotated[int, typer.Option(min=1, max=30, help="How many days to live through.")] = 7,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Tell the whole loop as one story on real flights."""
    from datetime import timedelta

    from tidemill.demo.story import LIVE, Story, prepare_stage

    out = output(json)
    opened = open_for_command(project)
    prepare_stage(opened)
    facts = Story(opened, out, until=LIVE + timedelta(days=days)).tell()
    opened.close()
    out.result(facts.to_dict())


def up(
    host: HostOption = None,
    port: PortOption = None,
    dashboard: Annotated[bool, typer.Option(help="Serve the dashboard too.")] = True,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Start everything on this machine: Redis, API, scheduler and dashboard."""
    from tidemill.cli.up import start_all
    from tidemill.clock import is_simulated

    out = output(json)
    with out.progress("starting"):
        opened = open_for_command(project)
        running = start_all(opened, host=host, port=port, dashboard=dashboard)
    out.say(f"The API answers at [bold]{running.url}[/bold]; try it out at {running.url}/docs.", marked=True)
    if dashboard:
        out.say(f"The dashboard is at {running.url}/dashboard.")
    if is_simulated(opened.clock):
        at = f"{opened.clock.now():%Y-%m-%d %H:%M} UTC"
        out.say(f"The clock is simulated and stands at {at}: once what is due then is done, the schedule waits.")
    out.say("`tidemill status` shows the parts, `tidemill down` stops them.")
    out.result(running)


def down(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Stop what `up` started; data stays."""
    from tidemill.cli.up import stop_all

    out = output(json)
    stopped = stop_all(open_for_command(project))
    out.say(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
    out.result(stopped)


def status(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Show the parts on this machine and what they serve."""
    from tidemill.cli.up import look

    out = output(json)
    parts = look(open_for_command(project))
    out.table("Status", ("part", "state", "detail"), [(part.name, part.state, part.detail) for part in parts])
    out.result(parts)


def worker(project: ProjectOption = None) -> None:
    """Run the schedule in this process until stopped; any number of workers may share a ledger."""
    from tidemill.cli.work import run_worker

    run_worker(open_for_command(project))


def serve(
    host: HostOption = None,
    port: PortOption = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve the dashboard too.")] = False,
    project: ProjectOption = None,
) -> None:
    """Answer predictions and features over HTTP until stopped."""
    from tidemill.cli.stopping import end_within
    from tidemill.cli.up import grace_of
    from tidemill_serving.process import run_server

    opened = open_for_command(project)
    settings = opened.settings
    run_server(
        opened,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        dashboard=dashboard,
        when_told_to_end=lambda: end_within(grace_of(settings)),
    )


def doctor(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Look at every part and say what to do about what is missing."""
    from tidemill.cli.doctor import examine, show

    if not show(examine(find_project(project)), output(json)):
        raise typer.Exit(1)
