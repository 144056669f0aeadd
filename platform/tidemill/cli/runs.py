"""`runs` and `schedule`: what was run, what is due, and how to stop or start it."""

from __future__ import annotations

from datetime import datetime
from json import loads
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.options import JsonOption, ProjectOption, open_for_command, output
from tidemill.errors import InputError

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.materialize.records import Run
    from tidemill.project import Project

schedule_app = typer.Typer(help="Scheduled work: what is due, pause, resume, try again.", no_args_is_help=True)

_LARGEST = 2**31 - 1  # of the numbers that both databases take
_STATES = ("claimed", "succeeded", "failed")
_COLUMNS = ("id", "task", "kind", "interval, UTC", "state", "rows written", "took")  # the rest: --explain

TaskArgument = Annotated[str, typer.Argument(help="A task as `schedule show` names it, backfill:VIEW, or * for all.")]


def register(app: typer.Typer) -> None:
    app.command()(runs)
    app.add_typer(schedule_app, name="schedule")


def runs(
    task: Annotated[str | None, typer.Argument(help="Only this view or task.", show_default=False)] = None,
    state: Annotated[str | None, typer.Option(help="claimed, succeeded or failed.", show_default=False)] = None,
    explain: Annotated[
        int | None, typer.Option(min=1, max=_LARGEST, help="Explain one run, by its id.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=_LARGEST, help="How many, newest first.")] = 30,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """List the ledger: every run, what it did, and why it failed."""
    out = output(json)
    opened = open_for_command(project)
    if explain is not None:
        _explain(out, opened, explain)
        return
    if state is not None and state not in _STATES:
        raise InputError(f"No run is {state!r}.", hint=f"A run is one of {', '.join(_STATES)}.")
    found = opened.ledger.runs(task, limit=limit, state=state)
    if found:
        out.table("Runs, newest first", _COLUMNS, [_cells(run) for run in found])
        out.say("All about one of them: tidemill runs --explain ID")
    else:
        if task is not None:
            _known(opened, task)
        out.say("No such run in the ledger.")
    for run in found:
        if run.error:
            out.warn(f"{run.view} up to {run.end:%Y-%m-%d %H:%M:%S}, try {run.attempt}: {run.error}")
    out.result(found)


def _explain(out: Output, project: Project, run_id: int) -> None:
    run = project.ledger.run(run_id)
    out.table(f"Run {run_id}", (), _facts(run, project.clock.now()))
    out.result(run)


def _cells(run: Run) -> tuple[Any, ...]:
    """A run's line in the table of runs, below `_COLUMNS`."""
    begin = "the beginning" if run.start is None else f"{run.start:%Y-%m-%d %H:%M}"
    same_day = run.start is not None and run.start.date() == run.end.date()
    interval = f"{begin} to {run.end:{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}}"
    state = f"{run.state}, try {run.attempt}" if run.attempt > 1 else run.state
    rows = f"{run.rows_written:,}" + (f", {run.rows_skipped:,} skipped" if run.rows_skipped else "")
    took = None if run.seconds is None else f"{run.seconds:.1f} s"
    return run.id, run.view, run.kind, interval, state, rows, took


def _facts(run: Run, now: datetime) -> list[tuple[str, Any]]:
    """What is known of one run, in words."""
    begin = "the beginning" if run.start is None else f"{run.start:%Y-%m-%d %H:%M:%S}"
    facts: list[tuple[str, Any]] = [
        ("what", f"{run.view} ({run.kind}), try {run.attempt}"),
        ("interval", f"after {begin}, up to {run.end:%Y-%m-%d %H:%M:%S} UTC"),
        ("who", run.claimed_by),
        *([("taken over", f"{run.takeovers} times from a worker that had ended")] if run.takeovers else []),
        ("started", run.started_at),
    ]
    if run.state == "claimed":
        alive = run.lease_until > now
        until = f"until {run.lease_until:%H:%M:%S} UTC it is its worker's, unless that process ends before"
        facts += [("state", f"at work; {until}" if alive else f"left by its worker; {_who_continues(run)}")]
        return facts + _progress(run)
    facts += [("state", run.state), ("finished", run.finished_at), ("seconds", run.seconds)]
    if run.state == "failed":
        return [*facts, ("error", run.error), *_progress(run)]
    seen = "nothing, as facts before its start are not all loaded" if run.cutoff is None else run.cutoff
    rows = f"{run.rows_read:,} read, {run.rows_written:,} written, {run.rows_skipped:,} skipped"
    if run.kind == "extract":
        return [*facts, ("all has landed up to", seen), ("rows", f"{rows} (in quarantine: `tidemill quarantine list`)")]
    facts += [("the store then held all up to", seen), ("rows", f"{rows} (null key, or older than stored)")]
    return facts + _progress(run)[1:]


def _progress(run: Run) -> list[tuple[str, str]]:
    """What a run has noted on its way: how far it came, and where it began if that was not at its first chunk."""
    if not run.progress:
        return []
    noted = loads(run.progress)
    if isinstance(noted["done"], list):
        return [("progress", f"{len(noted['done'])} of its pieces are in the store")]
    goes_on = ", from where the next try of this interval goes on if store and source are still as they were"
    came = f"all up to {_instant(noted['done'])} is in the store"
    facts = [("progress", came + goes_on if run.state == "failed" and noted.get("source") else came)]
    if noted.get("went_on_from"):
        facts += [
            ("went on from", f"{_instant(noted['went_on_from'])}, where an earlier try had come; rows are of both")
        ]
    return facts


def _instant(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def _who_continues(run: Run) -> str:
    if run.kind != "backfill" or run.start is None:
        return "the next run continues it"
    return f"`tidemill backfill {run.view} --start {run.start.isoformat()}` goes on with what is left"


@schedule_app.command("show")
def show(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Every scheduled task: when it ran last, when it runs next, whether it is paused or was given up."""
    out = output(json)
    rows = _schedule(open_for_command(project))
    columns = ("task", "does", "schedule", "done up to", "next", "state", "why", "error")
    out.table("Schedule", columns, [tuple(row.values()) for row in rows])
    out.result(rows)


@schedule_app.command("pause")
def pause(
    task: TaskArgument,
    reason: Annotated[str, typer.Option(help="Why; shown to others.")] = "",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Start nothing more of a task; what is running ends by itself."""
    opened = open_for_command(project)
    _known(opened, task)
    _switches(opened).pause(task, reason=reason, at=opened.clock.now())
    _done(json, task, f"{task} is paused. What to try next: tidemill schedule resume '{task}'", paused=True)


@schedule_app.command("resume")
def resume(task: TaskArgument, project: ProjectOption = None, json: JsonOption = False) -> None:
    """Start a paused task again."""
    opened = open_for_command(project)
    _known(opened, task)
    switches = _switches(opened)
    switches.resume(task, at=opened.clock.now())
    if switches.is_everything_paused():
        _done(json, task, f"{task} rests with everything else: tidemill schedule resume '*'", paused=True)
        return
    when = "when `tidemill backfill` is called again" if task.startswith("backfill:") else "at its next tick"
    _done(json, task, f"{task} goes on {when}.", paused=False)


@schedule_app.command("retry")
def retry(task: TaskArgument, project: ProjectOption = None, json: JsonOption = False) -> None:
    """Try again what was given up after too many failures."""
    opened = open_for_command(project)
    _known(opened, task)
    _switches(opened).retry(task, at=opened.clock.now())
    _done(json, task, f"{task} is tried again by the next worker that looks.", retried=True)


def _schedule(project: Project) -> list[dict[str, Any]]:
    from tidemill.schedule.switches import EVERYTHING
    from tidemill.schedule.ticks import next_tick

    worker, now = _worker(project), project.clock.now()
    paused, given_up = _switches(project).paused(), {letter.view: letter for letter in worker.given_up(now)}
    waiting, rows = worker.waiting(now), []
    for task in worker.tasks:
        schedule, letter = task.schedule, given_up.get(task.name)
        pause = paused.get(task.name) or paused.get(EVERYTHING)
        state, why = ("given up", None) if letter else ("on", None)
        if pause:
            state, why = "paused", pause.reason or None
        elif not letter and task.name in waiting:
            state, why = "waits", f"for {', '.join(waiting[task.name])}"
        rows.append(
            {
                "task": task.name,
                "does": task.kind.value,
                "schedule": f"{schedule.cron} {schedule.timezone}" if schedule.cron else f"every {schedule.every}",
                "done_up_to": project.ledger.last_end(task.name, by=now),
                "next": next_tick(schedule, now),
                "state": state,
                "why": why,
                "error": letter.error if letter else None,
            }
        )
    return rows


def _worker(project: Project) -> Any:
    """A worker that knows every task; it is only asked, never run."""
    from tidemill.schedule.worker import Worker

    return Worker(project, retrain=lambda _project, _model, _at: None)


def _switches(project: Project) -> Any:
    from tidemill.schedule.switches import Switches

    return Switches(project.database, project.name)


def _known(project: Project, task: str) -> None:
    from tidemill.errors import NotDefinedError
    from tidemill.materialize.backfill import switch_name
    from tidemill.schedule.switches import EVERYTHING

    views = [view.name for view in project.catalog.views if view.online]
    names = [*(item.name for item in _worker(project).tasks), *map(switch_name, views)]
    if task not in (*names, *views, EVERYTHING):
        raise NotDefinedError("scheduled task", task, {*names, *views})


def _done(as_json: bool, task: str, text: str, **facts: Any) -> None:
    out = output(as_json)
    out.say(text)
    out.result({"task": task, **facts})
