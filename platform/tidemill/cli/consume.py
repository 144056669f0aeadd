"""`consume`: events from a Redis Stream or a Kafka topic into the stores, for as long as it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.options import JsonOption, ProjectOption, open_for_command, output


def register(app: typer.Typer) -> None:
    app.command()(consume)


def consume(
    stream: Annotated[str, typer.Argument(help="The push source or Kafka source.")],
    address: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="kafka://host:port/topic or redis://host:port/0?stream=key. Default: what `consume:` in the settings "
            "or the source itself says, else the stream of this name in the project's own Redis.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="online, offline or both.")] = "online",
    group: Annotated[
        str | None,
        typer.Option(help="Consumers of one group share the events. Default: tidemill-PROJECT.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="This consumer's name, its own in the group and kept over restarts. Default: the host's name.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Events pushed together at most.")] = 500,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Answer /healthz and /metrics here, on 127.0.0.1.", show_default=False),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one line of progress to the next.")] = 10.0,
    drain: Annotated[bool, typer.Option("--drain", help="Stop when nothing is left to do.")] = False,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Push the events of a Redis Stream or a Kafka topic until stopped; none is lost, none counts twice."""
    import socket

    from tidemill.cli.consuming import Consuming, find_address

    out = output(json)
    opened = open_for_command(project)
    try:
        done = Consuming(
            opened,
            stream,
            address=find_address(opened, stream, address),
            to=to,
            group=group or f"tidemill-{opened.name}",
            consumer=name or socket.gethostname(),
            out=out,
        ).run(batch=batch, every=every, drain=drain, port=port)
    finally:
        opened.close()
    out.say(f"{done.accepted:,} events accepted, {done.duplicates:,} seen before, {done.set_aside:,} set aside.")
    out.result(done)
