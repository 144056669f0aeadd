"""`verify`: parity of what was served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.options import InstantOption, JsonOption, OneModelArgument, ProjectOption, open_for_command, output

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.monitor.parity_report import Outcome, ParityReport

_SHOWN = 10


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    model: OneModelArgument = None,
    start: InstantOption = None,
    end: InstantOption = None,
    late_within: Annotated[str, typer.Option(help="How late an event may be and still count as late data.")] = "15m",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Recompute every value that was served and compare; exit code 1 if anything is left unexplained."""
    from tidemill.definitions.duration import parse_duration
    from tidemill.monitor.parity import verify as run

    out = output(json)
    opened = open_for_command(project)
    with out.progress("verifying"):
        report = run(opened, model=model, start=start, end=end, late_within=parse_duration(late_within))
    _say(out, report)
    out.result(report.to_dict())
    if not report.ok:
        raise typer.Exit(1)


def _say(out: Output, report: ParityReport) -> None:
    from tidemill.monitor.parity_report import DIFFERENCES, Outcome

    if not report.predictions:
        out.say("Nothing was served in this interval, so there is nothing to verify.")
        return
    shown = [outcome for outcome in DIFFERENCES if report.total(outcome) or outcome is Outcome.UNEXPLAINED]
    period = f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC"
    out.table(
        f"Parity of {report.predictions:,} predictions, {period}",
        ("feature", "view", "compared", "equal", *(_words(outcome) for outcome in shown)),
        [
            (item.feature, item.view, item.compared, item.count(Outcome.EQUAL), *map(item.count, shown))
            for item in report.features
        ],
    )
    out.say(f"{report.equal:,} of {report.compared:,} values are equal; {report.unexplained:,} are unexplained.")
    for note in report.notes:
        out.warn(note)
    for example in report.examples[:_SHOWN]:
        out.say(
            f"{_words(example.outcome)}: {example.view}:{example.feature} for {example.keys} at "
            f"{example.at:%Y-%m-%d %H:%M:%S} was served as {example.served}, recomputed as {example.recomputed}."
        )


def _words(outcome: Outcome) -> str:
    return outcome.name.lower().replace("_", " ")
