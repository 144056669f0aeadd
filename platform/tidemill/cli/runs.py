"""`runs` and `schedule`: what was run, what is due, and how to stop or start it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.options import JsonOption, ProjectOption, open_for_command, output

if TYPE_CHECKING:
    from tidemill.project import Project

schedule_app = typer.Typer(help="Scheduled work: what is due, pause, resume, try again.", no_args_is_help=True)

TaskArgument = Annotated[str, typer.Argument(help="A task as `schedule show` names it, or * for all.")]


def register(app: typer.Typer) -> None:
    app.command()(runs)
    app.add_typer(schedule_app, name="schedule")


def runs(
    task: Annotated[str | None, typer.Argument(help="Only this view or task.", show_default=False)] = None,
    state: Annotated[str | None, typer.Option(help="claimed, succeeded or failed.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 30,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """List the ledger: every run, what it did, and why it failed."""
    out = output(json)
    found = open_for_command(project).ledger.runs(task, limit=limit, state=state)
    if not found:
        out.say("No such run in the ledger.")
    else:
        out.table(
            "Runs, newest first",
            ("task", "kind", "from", "up to", "try", "state", "read", "written", "seconds", "started"),
            [
                (
                    run.view,
                    run.kind,
                    run.start,
                    run.end,
                    run.attempt,
                    run.state,
                    run.rows_read,
                    run.rows_written,
                    run.seconds,
                    run.started_at,
                )
                for run in found
            ],
        )
    for run in found:
        if run.error:
            out.warn(f"{run.view} up to {run.end:%Y-%m-%d %H:%M:%S}, try {run.attempt}: {run.error}")
    out.result(found)


@schedule_app.command("show")
def show(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Every scheduled task: when it ran last, when it runs next, whether it is paused or was given up."""
    out = output(json)
    rows = _schedule(open_for_command(project))
    columns = ("task", "does", "schedule", "done up to", "next", "state", "error")
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
    _switches(opened).resume(task, at=opened.clock.now())
    _done(json, task, f"{task} runs again at its next tick; missed ones as its schedule says.", paused=False)


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
    rows = []
    for task in worker.tasks:
        schedule, letter = task.schedule, given_up.get(task.name)
        rests = task.name in paused or EVERYTHING in paused
        rows.append(
            {
                "task": task.name,
                "does": task.kind.value,
                "schedule": f"{schedule.cron} {schedule.timezone}" if schedule.cron else f"every {schedule.every}",
                "done_up_to": project.ledger.last_end(task.name, by=now),
                "next": next_tick(schedule, now),
                "state": "paused" if rests else "given up" if letter else "on",
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
    from tidemill.schedule.switches import EVERYTHING

    names = [item.name for item in _worker(project).tasks]
    if task not in (*names, EVERYTHING):
        raise NotDefinedError("scheduled task", task, names)


def _done(as_json: bool, task: str, text: str, **facts: Any) -> None:
    out = output(as_json)
    out.say(text)
    out.result({"task": task, **facts})
