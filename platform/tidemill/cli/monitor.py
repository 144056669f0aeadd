"""`monitor`: drift, freshness and performance of a model, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.options import InstantOption, JsonOption, OneModelArgument, ProjectOption, open_for_command, output

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.monitor.check import MonitorReport

_SHOWN = 15


def register(app: typer.Typer) -> None:
    app.command()(monitor)


def monitor(
    model: OneModelArgument = None,
    at: InstantOption = None,
    window: Annotated[str, typer.Option(help="How far back to look.")] = "7d",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Look at drift, freshness and performance now; exit code 1 if a finding is critical."""
    from tidemill.definitions.duration import parse_duration
    from tidemill.monitor.check import monitor as run

    out = output(json)
    opened = open_for_command(project)
    names = [model] if model else [item.name for item in opened.catalog.models]
    when = at or opened.clock.now()
    with out.progress("looking"):
        reports = [run(opened, name, at=when, window=parse_duration(window)) for name in names]
    for report in reports:
        _say(out, report)
    if not reports:
        out.say("No model is declared, so there is nothing to monitor.")
    out.result([report.to_dict() for report in reports])
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _say(out: Output, report: MonitorReport) -> None:
    from tidemill.definitions.duration import format_duration

    out.say(f"{report.model} at {report.at:%Y-%m-%d %H:%M} UTC, the last {format_duration(report.window)}")
    _say_performance(out, report)
    _say_drift(out, report)
    out.table(
        "Freshness",
        ("view", "kept", "up to", "newest event", "age", "promised", "late", "stale"),
        [
            (s.view, s.kind, s.cutoff, s.newest_event, _text(s.age), _text(s.max_age), s.is_late, s.is_stale)
            for s in report.freshness
        ],
    )
    if report.findings:
        out.table(
            "Findings",
            ("severity", "about", "what", "advice"),
            [(f.severity.value, f.subject, f.what, f.advice) for f in report.findings],
        )
    else:
        out.say("Nothing to report: the model works on data like that it was trained on.")


def _say_performance(out: Output, report: MonitorReport) -> None:
    rows = [
        (f"{version.version}", metric, value, version.errors[metric], version.trained.get(metric), version.labelled)
        for version in report.performance.versions
        for metric, value in version.metrics.items()
        if value == value  # NaN: the metric has no meaning on these rows
    ]
    if rows:
        columns = ("version", "metric", "now", "standard error", "in training", "labelled predictions")
        out.table("Performance", columns, rows)
    else:
        out.say(f"{report.performance.predictions:,} predictions, none with a known outcome yet.")


def _say_drift(out: Output, report: MonitorReport) -> None:
    drifts = [*report.drift.features[:_SHOWN]]
    if report.drift.prediction is not None:
        drifts.insert(0, report.drift.prediction)
    if drifts:
        out.table(
            f"Drift over {report.drift.rows:,} predictions, furthest moved first",
            ("column", "PSI", "beyond chance", "verdict", "what moved most"),
            [(d.name, d.psi, d.psi > d.chance, d.verdict.value, d.moved) for d in drifts],
        )


def _text(duration: object) -> str | None:
    from datetime import timedelta

    from tidemill.definitions.duration import format_duration

    return format_duration(duration) if isinstance(duration, timedelta) else None
