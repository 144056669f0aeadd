"""`replay`: history lived again through the live system."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from tidemill.cli.options import JsonOption, ProjectOption, instant, open_for_command, output


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    model: Annotated[str, typer.Argument(help="The model whose spine is asked about.")],
    start: Annotated[datetime, typer.Option("--from", "--start", parser=instant, metavar="INSTANT")],
    end: Annotated[datetime, typer.Option("--to", "--end", parser=instant, metavar="INSTANT")],
    url: Annotated[str | None, typer.Option(help="A running API; without it one is started for the replay.")] = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Push history through the live system in simulated time: events, schedule and predictions, each at its instant."""
    from contextlib import nullcontext

    from tidemill.client import Client
    from tidemill.demo.server import api_of
    from tidemill.materialize.reach import never_loaded
    from tidemill.replay.run import Replay

    out = output(json)
    opened = open_for_command(project)
    token = opened.settings.api_token
    serving = nullcontext(url) if url else api_of(opened.root, log=opened.state / "logs" / "replay-api.log")
    for view in never_loaded(opened, start):
        out.warn(
            f"{view} was never loaded with what happened before, so it answers from what the replay pushes. To have it "
            f"all, stop, run `tidemill clock set {start:%Y-%m-%dT%H:%M:%SZ}` and `tidemill materialize`, then replay."
        )
    length = (end - start).total_seconds()
    secret = None if token is None else token.get_secret_value()
    before = start
    with serving as address, Client(address, token=secret) as client, out.progress("living") as advance:

        def moved(now: datetime, _predictions: int) -> None:
            nonlocal before
            advance((now - before).total_seconds() / length, f"{now:%a %d %b %H:%M}")
            before = now

        report = Replay(opened, model, client).run(start=start, end=end, progress=moved)
    out.say(
        f"{report.predictions:,} predictions, {report.events:,} events pushed and {report.runs} scheduled runs in "
        f"{report.seconds:.1f} s. It is {end:%Y-%m-%d %H:%M} UTC for this project now."
    )
    out.say("Next: `tidemill verify` recomputes what was served; `tidemill monitor` looks at drift and performance.")
    out.result(report)
