"""`extract`, `materialize`, `backfill`, `features`, `push`, `dataset`, `leaks`: data in, features out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.options import (
    EntityOption,
    InstantOption,
    JsonOption,
    ModelArgument,
    ProjectOption,
    let_readers_go_first,
    open_for_command,
    output,
)
from tidemill.cli.quarantine import quarantine_app
from tidemill.cli.rows import typed_row
from tidemill.errors import InputError

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.clock import Clock
    from tidemill.extract import ExtractReport
    from tidemill.materialize.backfill import Estimate
    from tidemill.materialize.report import RunReport
    from tidemill.materialize.run import Tell
    from tidemill.project import Project
    from tidemill.schedule.worker import TaskReport

features_app = typer.Typer(help="Read features.", no_args_is_help=True)
dataset_app = typer.Typer(help="Training sets as files.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command()(extract)
    app.command()(materialize)
    app.command()(backfill)
    app.command()(push)
    app.command()(leaks)
    app.add_typer(quarantine_app, name="quarantine")
    app.add_typer(features_app, name="features")
    app.add_typer(dataset_app, name="dataset")


def extract(
    start: InstantOption = None,
    end: InstantOption = None,
    every: Annotated[str, typer.Option(help="Length of one interval, and so of one file.")] = "1d",
    source: Annotated[list[str] | None, typer.Option(help="Only these sources.", show_default=False)] = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch raw data into the offline store, once for each interval."""
    from tidemill.extract import extract as run_extract

    out = output(json)
    opened = open_for_command(project)
    now = opened.clock.now()
    _refuse_future(end, opened.clock)
    with out.progress("extracting") as advance:
        reports = run_extract(
            opened,
            start=_needed(start, "--start"),
            end=end or now,
            sources=source,
            every=every,
            progress=advance,
        )
    _say_extracted(out, reports)
    for report in reports:
        _tell_what_is_passed_over(out, opened, report, now)
    out.result(reports)


def _refuse_future(end: datetime | None, clock: Clock) -> None:
    from tidemill.clock import is_simulated

    if end is not None and end > (now := clock.now()) and not is_simulated(clock):
        raise InputError(
            f"The interval ends in the future: {end.isoformat()} is after {now.isoformat()}.",
            hint="What becomes known later would never land. Extract up to now at the latest.",
        )


def _say_extracted(out: Output, reports: Sequence[ExtractReport]) -> None:
    out.table(
        "Extracted",
        ("source", "intervals", "already there", "rows", "in quarantine"),
        [(report.source, report.intervals, report.skipped, report.rows, report.quarantined) for report in reports],
    )
    for report in reports:
        for reason, rows in report.reasons:
            out.say(f"{report.source}: {rows:,} rows in quarantine: {reason}")
    if any(report.quarantined for report in reports):
        out.say("`tidemill quarantine` shows, explains and clears them.")


def _tell_what_is_passed_over(out: Output, project: Project, report: ExtractReport, now: datetime) -> None:
    from tidemill.materialize.reach import passing_over

    if report.first_known is None:
        return
    for view in passing_over(project, report.source, report.first_known, at=now):
        out.warn(
            f"{view} has been loaded further than {report.first_known:%Y-%m-%d %H:%M:%S} already, from where rows of "
            f"{report.source} have landed only now: `tidemill materialize --again --view {view}` loads them."
        )


def materialize(
    until: InstantOption = None,
    view: Annotated[list[str] | None, typer.Option(help="Only these views.", show_default=False)] = None,
    due: Annotated[
        bool, typer.Option("--due", help="Only what the schedule asks for now; for cron and Airflow.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, write nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Load all of it anew, as after Redis has lost its data.")
    ] = False,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Bring the online store up to date."""
    from tidemill.materialize.run import Materializer

    out = output(json)
    opened = open_for_command(project)
    at = opened.clock.now()
    if again and (due or dry_run):
        raise InputError("--again loads everything now; it goes with neither --due nor --dry-run.")
    if due and (until is not None or view):
        raise InputError("--due goes by the schedule; it goes with neither --until nor --view.")
    let_readers_go_first(opened)
    if due:
        _run_due(out, opened, at, dry_run=dry_run)
        return
    names = view or [item.name for item in opened.catalog.views if item.online]
    with out.stages("materializing") as stage:
        materializer = Materializer(opened, tell=_shares_of(names, stage))
        reports = materializer.materialize(until=until or at, views=view, at=at, dry_run=dry_run, again=again)
    _print_runs(out, reports, dry_run=dry_run)


def _run_due(out: Output, project: Project, at: datetime, *, dry_run: bool) -> None:
    from tidemill.schedule.preview import would_run
    from tidemill.schedule.worker import Worker

    worker = Worker(project)
    reports = list(would_run(project, at)) if dry_run else worker.run_due(at)
    told = {report.view for report in reports}
    for letter in [one for one in worker.given_up(at) if one.view not in told]:
        cause = (letter.error or "its worker ended").rstrip(".")
        out.warn(f"{letter.view} was given up: {cause}. Mend it, then `tidemill schedule retry {letter.view}`.")
    _print_runs(out, reports, dry_run=dry_run)


def _shares_of(views: Sequence[str], stage: Callable[[str, float], None]) -> Tell:
    """Progress of one view after the other as progress of the whole."""
    begun: list[str] = []

    def tell(view: str, share: float) -> None:
        if view not in begun:
            begun.append(view)
        stage(f"{view}, {len(begun)} of {len(views)} views", (len(begun) - 1 + share) / max(len(views), 1))

    return tell


def backfill(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    start: InstantOption = None,
    end: InstantOption = None,
    parallel: Annotated[int, typer.Option(min=1, help="Chunks loaded at the same time.")] = 1,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Load an interval of history; never overwrites a newer value, and goes on where it was stopped."""
    from tidemill.materialize.backfill import backfill as run_backfill
    from tidemill.materialize.backfill import switch_name, unfinished_end

    out = output(json)
    opened = open_for_command(project)
    begin = _needed(start, "--start")
    until = end or unfinished_end(opened, view, start=begin) or opened.clock.now()
    let_readers_go_first(opened)
    with out.stages(f"backfilling {view}") as stage:
        reports = run_backfill(
            opened,
            view,
            start=begin,
            end=until,
            parallel=parallel,
            estimate=lambda now: stage(_how_far(now), now.done / now.total),
        )
    for report in reports:
        if report.state == "paused":
            out.say(f"Paused. Go on with `tidemill schedule resume {switch_name(view)}` and the same command.")
        if report.state == "held":
            out.say("Another process is at this very backfill; it goes on there.")
        if report.state == "failed":
            out.say("Once the cause is mended, the same command goes on with the pieces that are left.")
    _print_runs(out, reports)


def _how_far(estimate: Estimate) -> str:
    left = "" if estimate.seconds_left is None else f", about {timedelta(seconds=round(estimate.seconds_left))} left"
    return f"{estimate.done} of {estimate.total} pieces{left}"


def push(
    source: Annotated[str, typer.Argument(help="The push source.")],
    file: Annotated[Path, typer.Argument(help="A Parquet, CSV or JSON-lines file of events.", exists=True)],
    to: Annotated[str, typer.Option(help="online, offline or both.")] = "online",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Write events into the stores as they happen."""
    out = output(json)
    opened = open_for_command(project)
    result = opened.push(source, _read_frame(file), to=to)
    out.say(
        f"{result.accepted:,} events accepted, {result.duplicates:,} seen before, {len(result.rejected):,} rejected."
    )
    for row in result.rejected[:10]:
        out.warn(f"row {row.row}: {row.reason}")
    out.result(result)


@features_app.command("get")
def features_get(
    service: Annotated[str, typer.Argument(help="A feature service.")],
    entity: EntityOption,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Read the online features of one entity, as serving would."""
    out = output(json)
    opened = open_for_command(project)
    result = opened.online.read(service, [typed_row(opened.catalog, entity)], at=opened.clock.now())
    rows = [
        (name, result.values[name][0], result.statuses[name][0].name, _seconds_old(opened, result.event_times[name][0]))
        for name in result.names
    ]
    shown = [(name, _as_it_is(value), status, _age(seconds)) for name, value, status, seconds in rows]
    out.table(f"{service} at {opened.clock.now():%Y-%m-%d %H:%M:%S} UTC", ("feature", "value", "status", "age"), shown)
    out.result({name: {"value": value, "status": status, "age_seconds": age} for name, value, status, age in rows})


@dataset_app.command("build")
def dataset_build(
    model: ModelArgument,
    to: Annotated[Path | None, typer.Option(help="Folder of the snapshot.", show_default=False)] = None,
    start: InstantOption = None,
    end: InstantOption = None,
    mode: Annotated[str, typer.Option(help="served (what serving would have returned) or event.")] = "served",
    memory_limit: Annotated[
        str | None, typer.Option(help="What this may hold in memory, e.g. 2gb. Default: the project's setting.")
    ] = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Write a model's training set as a snapshot with its digest and manifest."""
    from tidemill.offline.datasets import write_dataset
    from tidemill_training.spine import build_spine

    out = output(json)
    opened = open_for_command(project)
    definition = opened.catalog.model(model)
    spine = build_spine(opened, definition, start=start, end=end or opened.clock.now())
    training_set = opened.training_set(definition.service, spine, mode=mode, time_column=definition.spine.time_column)
    folder = to or opened.state / "datasets" / model
    with out.stages("building") as begin:
        snapshot = write_dataset(
            training_set,
            folder,
            memory_limit=memory_limit,
            progress=lambda done, rows: begin(f"{done:,} of {rows:,} rows", done / max(rows, 1)),
        )
    out.say(f"{snapshot.rows:,} rows written to {snapshot.folder}, digest {snapshot.digest[:16]}.")
    out.result(snapshot)


def leaks(
    model: ModelArgument,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Find features that could know the future, and say why; exit code 1 if there are any."""
    from tidemill_training.leakage import find_model_leaks

    out = output(json)
    with out.progress(f"looking through the features of {model}"):
        findings = find_model_leaks(open_for_command(project), model)
    out.result(findings)
    if not findings:
        out.say(f"No feature of {model!r} knows the future.")
        return
    out.table(
        "Features that could know the future",
        ("feature", "why", "evidence"),
        [(finding.feature, finding.kind, finding.evidence) for finding in findings],
    )
    raise typer.Exit(1)


def _print_runs(out: Output, reports: Sequence[RunReport | TaskReport], *, dry_run: bool = False) -> None:
    if not reports:
        out.say("Nothing is due.")
    else:
        out.table(
            "Would write" if dry_run else "Materialized",
            ("view", "up to", "rows read", "rows written", "skipped", "state", "seconds"),
            [
                (r.view, r.cutoff or r.end, r.rows_read, r.rows_written, r.rows_skipped, r.state, r.seconds)
                for r in reports
            ],
        )
        skipping = {report.view.startswith("extract:") for report in reports if report.rows_skipped}
        if False in skipping:
            out.say("Skipped are rows with a null key, and rows older than what is stored.")
        if True in skipping:
            out.say("What an extraction skipped is in quarantine: `tidemill quarantine list`.")
    for report in reports:
        if report.error:
            out.warn(f"{report.view}: {report.error}")
    out.result(reports)
    if any(report.state == "failed" for report in reports):
        raise typer.Exit(1)  # what calls this command must hear of it: cron, Airflow, Kubernetes


def _needed(value: Any, option: str) -> Any:
    if value is None:
        raise InputError(f"{option} is missing.", hint=f"Name an instant, e.g. {option} 2013-01-01.")
    return value


def _seconds_old(project: Project, event_time: int | None) -> float | None:
    from tidemill.clock import to_micros

    return None if event_time is None else round((to_micros(project.clock.now()) - event_time) / 1e6, 1)


def _as_it_is(value: Any) -> str | None:
    """A value without signs that are not its own: a year has no thousands."""
    if value is None or isinstance(value, str):
        return value
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _age(seconds: float | None) -> str | None:
    """Its largest two units: 281d, 1h30m, 2m5s."""
    from tidemill.definitions.duration import format_duration

    if seconds is None:
        return None
    return "".join(re.findall(r"\d+[a-z]", format_duration(timedelta(seconds=max(seconds, 0))))[:2])


def _read_frame(file: Path) -> Any:
    import polars as pl

    readers = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".ndjson": pl.read_ndjson}
    if file.suffix not in readers:
        raise InputError(f"{file.name} is of no known kind.", hint=f"Known: {', '.join(readers)}.")
    return readers[file.suffix](file)
