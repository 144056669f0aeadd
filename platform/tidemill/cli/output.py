"""The only place that prints. Every command says what it did in a sentence, or in JSON with `--json`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


_NOTHING = "\N{EN DASH}"
_WIDTH_OF_A_FILE = 140  # columns where nobody's window says how many there are


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command says. With `as_json` only `result` prints, once, as one JSON document on standard output.

    `say` is for people and goes to standard output, or nowhere in JSON mode; `warn` always goes to standard error.
    Everything is shown as it is, brackets included: names come from the data of users. Only what is said as `marked`
    has marks such as `[bold]`.
    """

    as_json: bool = False

    def say(self, text: str = "", *, marked: bool = False) -> None:
        if not self.as_json:
            _console().print(text, highlight=False, soft_wrap=True, markup=marked)

    def warn(self, text: str) -> None:
        _console(error=True).print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Numbers are right-aligned; None is shown as a dash."""
        if self.as_json:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(header_style="bold", show_header=any(columns))
        rows = [tuple(row) for row in rows]
        for place, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[place], int | float | type(None)) for row in rows)
            # A name that is cut off could not be typed again.
            side = "right" if numeric else "left"
            table.add_column(Text(column), justify=side, overflow="fold", no_wrap=numeric)
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        console = _console()
        # A title of the table's own would be broken at the table's width.
        console.print(Text(title, style="table.title"), soft_wrap=True)
        console.print(table)

    def result(self, document: Any) -> None:
        """The machine-readable answer; printed only with `--json`."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, default=_plain, indent=2) + "\n")

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[..., None]]:
        """A progress bar on standard error; yields `advance(share, text="")` with shares of the whole, 0 to 1.

        Silent in JSON mode. `text` is shown behind the label, such as the simulated time of a replay.
        """
        if self.as_json:
            yield lambda _share=0.0, _text="": None
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        with Progress(*columns, console=_console(error=True), transient=True) as bar:
            task = bar.add_task(label, total=1.0)

            def advance(share: float = 0.0, text: str = "") -> None:
                bar.update(task, advance=share, description=f"{label} {text}" if text else label)

            yield advance

    @contextmanager
    def stages(self, label: str) -> Iterator[Callable[[str, float], None]]:
        """The same bar for work that tells the stage that begins and the share of the whole that is done."""
        with self.progress(label) as advance:
            told = 0.0

            def begin(stage: str, share: float) -> None:
                nonlocal told
                advance(share - told, stage)
                told = share

            yield begin


def _console(*, error: bool = False) -> Any:
    from rich.console import Console

    console = Console(stderr=error)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_OF_A_FILE
    return console


def _cell(value: Any) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if hasattr(value, "item"):
        return value.item()
    return str(value)
