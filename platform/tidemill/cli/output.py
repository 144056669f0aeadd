"""The only place that prints. Every command says what it did in a sentence, or in JSON with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command says. With `as_json` only `result` prints, once, as one JSON document on standard output.

    `say` is for people and goes to standard output, or nowhere in JSON mode; `warn` always goes to standard error.
    """

    as_json: bool = False

    def say(self, text: str = "") -> None:
        if not self.as_json:
            _console().print(text, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        _console(error=True).print(f"[yellow]{text}[/yellow]", highlight=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Numbers are right-aligned; None is shown as a dash."""
        if self.as_json:
            return
        from rich.table import Table

        table = Table(title=title, title_justify="left", header_style="bold")
        rows = [tuple(row) for row in rows]
        for place, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[place], int | float | type(None)) for row in rows)
            table.add_column(column, justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        _console().print(table)

    def result(self, document: Any) -> None:
        """The machine-readable answer; printed only with `--json`."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, default=_plain, indent=2) + "\n")

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A progress bar on standard error; yields `advance(steps)`. Silent in JSON mode."""
        if self.as_json:
            yield lambda _steps: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=_console(error=True),
        )
        with bar:
            task = bar.add_task(label, total=total)
            yield lambda steps: bar.advance(task, steps)


def _console(*, error: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=error)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
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
