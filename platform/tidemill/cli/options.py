"""Options that many commands share, and how a command opens its project."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.output import Output

if TYPE_CHECKING:
    from tidemill.project import Project

_COMMAND: ContextVar[typer.Context | None] = ContextVar("command", default=None)
"""The command at work, which closes at its end what was opened for it."""


def _noted(command: typer.Context, folder: Path | None) -> Path | None:
    _COMMAND.set(command)
    return folder


ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        "-p",
        callback=_noted,
        envvar="TIDEMILL_PROJECT",
        help="The project's folder. Default: the current one, or feature_repo/ in it.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ModelArgument = Annotated[str, typer.Argument(help="A declared model.")]
OneModelArgument = Annotated[str | None, typer.Argument(help="Only this model.", show_default=False)]
EntityOption = Annotated[
    list[str], typer.Option("--entity", "-e", help="A key or request value as name=value; repeat it.")
]
HostOption = Annotated[
    str | None, typer.Option(help="Address to bind to. Default: the setting, 127.0.0.1.", show_default=False)
]
PortOption = Annotated[
    int | None, typer.Option(help="Port to listen on. Default: the setting, 8000.", show_default=False)
]


def find_project(folder: Path | None) -> Path:
    """The folder asked for; else the current one if it holds a project, else `feature_repo/` in it."""
    from tidemill.settings import FILE_NAME

    if folder is not None:
        return folder
    here = Path.cwd()
    return (
        here
        if (here / FILE_NAME).exists() or not (here / "feature_repo" / FILE_NAME).exists()
        else here / "feature_repo"
    )


def open_for_command(folder: Path | None) -> Project:
    """The project that a command works on, open until the command ends."""
    from tidemill.project import open_project

    opened, command = open_project(find_project(folder)), _COMMAND.get()
    if command is not None:
        command.call_on_close(opened.close)
    return opened


OWN_PROCESS: ContextVar[bool] = ContextVar("own_process", default=False)
"""Whether the process is there for a command and does nothing else."""


def let_readers_go_first(project: Project) -> None:
    """Lower the priority of a command that loads; a program that calls the command keeps its own."""
    from tidemill.materialize.priority import give_way

    if OWN_PROCESS.get():
        give_way(project)


def output(as_json: bool) -> Output:
    return Output(as_json=as_json)


def instant(text: str) -> datetime:
    """Read a date or an ISO instant; without a zone it is UTC."""
    from tidemill.clock import as_utc

    try:
        return as_utc(datetime.fromisoformat(text.replace("Z", "+00:00")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an instant; write 2013-10-01 or 2013-10-01T06:30:00Z.") from None


_INSTANT = "A date or an instant, such as 2013-10-01T06:30:00Z; UTC where no zone is given."
InstantOption = Annotated[
    datetime | None, typer.Option(parser=instant, metavar="INSTANT", help=_INSTANT, show_default=False)
]
