"""`score`: how production-ready the project is, line by line, with evidence."""

from __future__ import annotations

import typer

from tidemill.cli.options import JsonOption, ProjectOption, open_for_command, output


def register(app: typer.Typer) -> None:
    app.command()(score)


def score(project: ProjectOption = None, json: JsonOption = False) -> None:
    """Compute the ML Test Score and the MLOps level from what the project has recorded."""
    from tidemill.monitor.score import score as run

    out = output(json)
    opened = open_for_command(project)
    found = run(opened, at=opened.clock.now())
    out.table(
        "ML Test Score",
        ("section", "test", "points", "evidence"),
        [(test.section, test.asks, test.points, test.evidence) for test in found.tests],
    )
    out.table("Sections, of 7 points each", ("section", "points"), list(found.sections.items()))
    out.say(f"ML Test Score {found.score:g} (the least of the sections): {found.meaning}.")
    out.say(f"MLOps level {found.level}: {found.level_evidence}.")
    out.result(found.to_dict())
