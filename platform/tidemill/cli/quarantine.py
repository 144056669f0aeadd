"""`quarantine`: the rows that broke their source's contract: which, why, and away with them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.options import InstantOption, JsonOption, ProjectOption, open_for_command, output
from tidemill.errors import InputError, NotDefinedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from tidemill.extract import Quarantine, Quarantined
    from tidemill.project import Project

quarantine_app = typer.Typer(help="Rows that broke their source's contract.", no_args_is_help=True)


@quarantine_app.command("list")
def list_faults(
    source: Annotated[str | None, typer.Argument(help="Only this source.", show_default=False)] = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """What is wrong with the rows in quarantine: how many, in how many intervals, from when to when."""
    out = output(json)
    opened = open_for_command(project)
    quarantine = _quarantine(opened, source)
    faults = quarantine.faults(source)
    if faults:
        out.table(
            "In quarantine",
            ("source", "what is wrong", "rows", "intervals", "from", "up to"),
            [(one.source, one.reason, one.rows, one.intervals, one.first, one.last) for one in faults],
        )
        out.say(f"`tidemill quarantine show {faults[0].source}` shows the rows.")
    else:
        out.say("No row is in quarantine.")
    for entry in quarantine.entries(source):
        if not _landed(opened, entry):
            out.warn(f"{entry.source} {_span(entry)}: its contract was broken as a whole, and no row of it has landed.")
    out.result(faults)


@quarantine_app.command("show")
def show(
    source: Annotated[str, typer.Argument(help="A source.")],
    start: InstantOption = None,
    end: InstantOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many rows, those of the newest intervals first.")] = 20,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """The rows of a source that are in quarantine, each with what is wrong with it."""
    out = output(json)
    quarantine = _quarantine(open_for_command(project), source)
    entries = [entry for entry in quarantine.entries(source) if _within(entry, start, end)]
    rows = _rows(entries, limit)
    if not rows:
        out.say(f"No row of {source!r} is in quarantine{' between these instants' if start or end else ''}.")
    else:
        names = list(dict.fromkeys(name for row in rows for name in row["row"]))
        shown = [(row["interval"], row["reason"], *(row["row"].get(name) for name in names)) for row in rows]
        out.table(f"{source}, in quarantine", ("interval", "what is wrong", *names), shown)
        out.say(f"These are {len(rows):,}, the newest intervals first; all lie in {entries[0].file.parent}.")
    out.result(rows)


@quarantine_app.command("clear")
def clear(
    source: Annotated[list[str] | None, typer.Argument(help="Only of these sources.", show_default=False)] = None,
    before: InstantOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Of all sources.")] = False,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Delete rows from quarantine; with --before only of intervals that end by then. What landed stays as it is."""
    out = output(json)
    opened = open_for_command(project)
    if bool(source) == everything:
        raise InputError("Whose rows shall be deleted?", hint="Name sources, or say --all; --before spares the newest.")
    for name in source or ():
        _quarantine(opened, name)
    gone = _quarantine(opened).clear(None if everything else source, before=before)
    out.say(f"Deleted the rows of {len(gone):,} {'interval' if len(gone) == 1 else 'intervals'}; what landed stays.")
    out.result([{"source": entry.source, "interval": _span(entry), "file": str(entry.file)} for entry in gone])


def _quarantine(project: Project, source: str | None = None) -> Quarantine:
    """Raises NotDefinedError for a source that neither is defined nor has rows here."""
    from tidemill.extract import Quarantine

    quarantine = Quarantine(project.state)
    if source is not None:
        known = {*quarantine.sources(), *(item.name for item in project.catalog.sources)}
        if source not in known:
            raise NotDefinedError("source", source, known)
    return quarantine


def _landed(project: Project, entry: Quarantined) -> bool:
    """Whether the good rows of the interval have landed; a source that is gone has nothing more to land."""
    folder: Path | None = next(
        (project.root / item.path for item in project.catalog.sources if item.name == entry.source), None
    )
    return folder is None or (folder / entry.file.name).exists()


def _within(entry: Quarantined, start: datetime | None, end: datetime | None) -> bool:
    interval = entry.interval
    return interval is None or ((start is None or interval.end > start) and (end is None or interval.start < end))


def _rows(entries: Sequence[Quarantined], limit: int) -> list[dict[str, Any]]:
    return list(islice(_newest_first(entries), limit))


def _newest_first(entries: Sequence[Quarantined]) -> Iterator[dict[str, Any]]:
    from tidemill.extract.validation import REASON

    for entry in reversed(entries):
        for row in entry.rows().iter_rows(named=True):
            yield {"interval": _span(entry), "reason": row.pop(REASON), "row": row}


def _span(entry: Quarantined) -> str:
    interval = entry.interval
    if interval is None:
        return "once"
    return f"{interval.start:%Y-%m-%d %H:%M:%S} to {interval.end:%Y-%m-%d %H:%M:%S}"
