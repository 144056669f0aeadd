"""The `tidemill` command. Modules named here import only Typer; each command imports what it needs when it runs."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from tidemill.cli import (
    clock,
    consume,
    data,
    definitions,
    history,
    machine,
    models,
    monitor,
    prediction,
    runs,
    score,
    verify,
)
from tidemill.cli.bounded_log import keep_log_bounded
from tidemill.cli.options import OWN_PROCESS
from tidemill.errors import InputError, NotDefinedError, TidemillError

app = typer.Typer(
    name="tidemill",
    help="Features, training, serving and retraining as one loop, with proof that they agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (definitions, data, models, prediction, machine, verify, monitor, runs, history, score, clock, consume):
    module.register(app)

_RUNS_LOG = logging.getLogger("tidemill.materialize.run")
"""Says why a run failed, as the command does that ran it; without a handler Python would print it beside that."""


def main() -> None:
    """Run the command line; a TidemillError is a sentence on standard error and an exit code, never a traceback."""
    try:
        keep_log_bounded()
        OWN_PROCESS.set(True)
        _RUNS_LOG.addHandler(logging.NullHandler())
        warnings.showwarning = _without_those_of_feast(warnings.showwarning)
        app()
    except TidemillError as error:
        _report(error)
        sys.exit(2 if isinstance(error, InputError | NotDefinedError) else 1)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What was finished is kept; run the command again to go on.\n")
        sys.exit(130)


def _without_those_of_feast(show: Callable[..., None]) -> Callable[..., None]:
    """Feast warns at every use of what it calls experimental, and of what it will deprecate in the user's definitions.
    Filters would not do: it sets its own. Who asks Python for warnings (`-W`, PYTHONWARNINGS) gets all of them."""

    def showwarning(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        is_about_feast = category is RuntimeWarning and "feast" in Path(filename).parts
        if sys.warnoptions or not (is_about_feast or issubclass(category, DeprecationWarning)):
            show(message, category, filename, *rest)

    return showwarning


def _report(error: TidemillError) -> None:
    if "--json" in sys.argv:
        document = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stderr.write(f"Error: {error}\n")
